"""The Reflector role: plain words for people, and from a model that may judge, a lesson for memory. Never evidence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from anneal_contracts.roles import PLAIN_WORDS, REFLECTION, Certainty, May, ModelRole, PlainWords, Reflection
from anneal_contracts.turns import Learn, Lesson
from anneal_contracts.work import PastAttempt, Reflect, Usage
from anneal_runtime.errors import AnnealError

from anneal_worker.roles.blobs import BlobReader, past_scripts
from anneal_worker.roles.door import Call, ModelDoor, ProfileInfo
from anneal_worker.roles.forms import Form
from anneal_worker.roles.material import call_of, gather, profile_of
from anneal_worker.roles.prompts import compose, cut, item_parts, past_parts, render, room_chars
from anneal_worker.roles.similarity import nearest
from anneal_worker.roles.turn import DEFAULT_TRIES, Turn, take_turn


@dataclass(frozen=True, kw_only=True)
class ReflectedAnswer:
    """words: the model's, for people, empty where it gave none (detail says why).

    reflection: only from a profile that may author or choose. transcript: canonical JSON, one entry a call.
    """

    words: str
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    detail: str = ""
    transcript: Sequence[bytes] = ()
    reflection: Reflection | None = None


async def reflect(
    door: ModelDoor,
    request: Reflect,
    profile: str,
    blob_reader: BlobReader | None = None,
    *,
    guidance: str = "",
    tries: int = DEFAULT_TRIES,
) -> ReflectedAnswer:
    """Asks for words on an item that was given up. Never raises for what a model or its server does."""
    try:
        info = (await door.profiles()).get(profile or "default")
    except AnnealError as e:
        return ReflectedAnswer(words="", detail=e.message)
    if info is None:
        return ReflectedAnswer(words="", detail=f"There is no model profile {profile!r}.")
    call = Call(run_id=request.run_id, item_id=request.item.id, profile=info.name, role=ModelRole.REFLECTOR)
    if info.may is May.NONE:
        asked = _words_messages(request)
        return _answer(await take_turn(door, call, info, Form(contract=PLAIN_WORDS), asked, tries=tries, teach=False))
    messages = await _messages(request, info, blob_reader, guidance)
    return _answer(await take_turn(door, call, info, Form(contract=REFLECTION), messages, tries=tries))


async def learn(
    door: ModelDoor, request: Learn, profile: str, blob_reader: BlobReader | None = None, *, guidance: str = ""
) -> tuple[Turn[Reflection], Lesson | None, float]:
    """What one failed attempt teaches: the turn, the lesson, and its likeness to the nearest earlier one.

    Pieces of the script are banned only where the diagnosis is certain: a wrong ban would forbid the right script.
    """
    info, mode, detail = await profile_of(door, profile)
    if info is None:
        return Turn(answer=None, mode=mode, detail=detail), None, 0.0
    material = await gather(request, info, ModelRole.REFLECTOR, blob_reader)
    values = {**material.values, "contract": REFLECTION.render(), "attempt": str(request.attempt)}
    messages = [
        {"role": "system", "content": render("reflector.system.md", values, guidance)},
        {"role": "user", "content": render("lesson.user.md", values)},
    ]
    turn = await take_turn(
        door,
        call_of(request, info, ModelRole.REFLECTOR),
        info,
        Form(contract=REFLECTION),
        messages,
        tries=min(DEFAULT_TRIES, request.calls_left),
        tokens_left=request.tokens_left,
        context={"script": material.scripts.get(request.attempt)},
    )
    told = turn.answer
    if told is None:
        return turn, None, 0.0
    lesson = Lesson(
        attempt=request.attempt,
        mechanism=told.mechanism,
        lesson=told.lesson,
        bans=told.bans,
        banned_text=told.banned_text if told.certainty is Certainty.HIGH else (),
        certainty=told.certainty.value,
    )
    earlier = [f"{x.lesson} {x.mechanism}" for x in request.lessons]
    return turn, lesson, nearest(f"{lesson.lesson} {lesson.mechanism}", earlier)


async def _messages(
    request: Reflect, info: ProfileInfo, blob_reader: BlobReader | None, guidance: str
) -> list[dict[str, str]]:
    room = room_chars(info.context_tokens, info.max_tokens_by_role.get(ModelRole.REFLECTOR.value, 1024))
    past = past_parts(request.past, await past_scripts(request.past, blob_reader))
    values = {
        "item": compose(item_parts(request.item), room // 3),
        "past": compose(past, room * 2 // 3) if past else "Nothing was tried.",
        "reason": request.reason,
        "contract": REFLECTION.render(),
    }
    return [
        {"role": "system", "content": render("reflector.system.md", values, guidance)},
        {"role": "user", "content": render("reflector.user.md", values)},
    ]


def _words_messages(request: Reflect) -> list[dict[str, str]]:
    """The few facts that a very small model can hold. It is shown no output of the target at all."""
    values = {
        "title": cut(request.item.title, 160),
        "reason": cut(_sentence(request.reason), 300),
        "last": _last(request.past),
        "contract": PLAIN_WORDS.render(),
    }
    return [
        {"role": "system", "content": render("words.system.md", values)},
        {"role": "user", "content": render("words.user.md", values)},
    ]


def _sentence(reason: str) -> str:
    """A reason without its mode's name in front and its full stop: it stands inside a sentence."""
    return re.sub(r"^[a-z_]+: ", "", reason.strip()).rstrip(".")


def _last(past: Sequence[PastAttempt]) -> str:
    if not past:
        return "No fix was tried."
    count = "One fix was tried" if len(past) == 1 else f"{len(past)} fixes were tried"
    return f"{count}; the last was “{cut(past[-1].title, 100)}”."


def _answer(turn: Turn[Reflection] | Turn[PlainWords]) -> ReflectedAnswer:
    answer = turn.answer
    return ReflectedAnswer(
        words=" ".join(answer.words.split()) if answer else "",
        model=turn.model,
        usage=turn.usage,
        detail="" if answer else f"{turn.mode}: {turn.detail}",
        transcript=turn.transcript,
        reflection=answer if isinstance(answer, Reflection) else None,
    )
