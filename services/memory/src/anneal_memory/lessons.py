"""Lessons of failed attempts, and how long items took: what is written beside tips and bans, and how it comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from anneal_contracts.canonical import digest
from anneal_runtime.errors import InvalidArgument, cut

from anneal_memory.checks import check_item_id
from anneal_memory.model import Scope

_CERTAINTIES = ("low", "medium", "high")
_TEXT_MAX = 600
_BANS_MAX = 5
_CATEGORY_MAX = 100
_LONGEST_S = 7 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one failed attempt taught, in a model's words."""

    item_id: str
    lesson: str
    mechanism: str
    bans: tuple[str, ...]
    certainty: str
    id: str = ""
    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ItemTime:
    """Seconds from an item's first command to its good end."""

    item_id: str
    category: str
    seconds: float


class LessonTx(Protocol):
    """What the rules need of a transaction."""

    async def save_lessons(self, scope: Scope, run_id: str, lessons: Sequence[Lesson]) -> None:
        """Adds them by id, or marks them as seen again; a forgotten one stays forgotten."""
        ...

    async def lessons(self, scope: Scope, item_ids: Sequence[str], since: datetime, most: int) -> Sequence[Lesson]:
        """The newest of each item, seen since then and not forgotten; in order of items, newest first."""
        ...

    async def forget_lesson(self, id_: str) -> bool:
        """Takes a lesson out of use; False where there is none of that id."""
        ...

    async def save_times(self, skill: str, run_id: str, times: Sequence[ItemTime]) -> None:
        """Adds them, once a run and item."""
        ...

    async def usual_times(self, skill: str, items: Mapping[str, str]) -> Mapping[str, float]:
        """Item -> seconds that nine in ten of its kind stayed below. items: id -> category."""
        ...


def lesson_id(scope: Scope, lesson: Lesson) -> str:
    """The id that this lesson has for this item in this scope, in every installation."""
    return digest("lesson", scope.skill, scope.fingerprint, lesson.item_id, lesson.lesson)[:32]


def checked_lesson(scope: Scope, lesson: Lesson, at: str) -> Lesson:
    """A lesson with its id and its texts within bounds. Raises InvalidArgument naming the field."""
    check_item_id(lesson.item_id, f"{at}.item_id")
    if not lesson.lesson.strip():
        raise InvalidArgument(f"{at}.lesson is empty", field=f"{at}.lesson")
    if lesson.certainty not in _CERTAINTIES:
        raise InvalidArgument(f"{at}.certainty is one of {', '.join(_CERTAINTIES)}", field=f"{at}.certainty")
    if "\0" in lesson.lesson + lesson.mechanism + "".join(lesson.bans):
        raise InvalidArgument(f"{at} holds a NUL character", field=at)
    short = replace(
        lesson,
        lesson=cut(lesson.lesson, _TEXT_MAX),
        mechanism=cut(lesson.mechanism, _TEXT_MAX),
        bans=tuple(cut(ban, _TEXT_MAX) for ban in lesson.bans[:_BANS_MAX]),
    )
    return replace(short, id=lesson_id(scope, short))


def check_time(time: ItemTime, at: str) -> None:
    """An item's time is above 0 and below a week."""
    check_item_id(time.item_id, f"{at}.item_id")
    if not 0 < time.seconds < _LONGEST_S:
        raise InvalidArgument(f"{at}.seconds is above 0 and below {_LONGEST_S:g}", field=f"{at}.seconds")
    if len(time.category) > _CATEGORY_MAX or "\0" in time.category:
        raise InvalidArgument(f"{at}.category has at most {_CATEGORY_MAX} characters", field=f"{at}.category")
