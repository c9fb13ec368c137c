"""Triage: what an attempt's facts mean and what follows. A table; the first row that fits wins."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from anneal_contracts.facts import CoreMode, Outcome, SkillPolicy
from anneal_contracts.work import Applied, Evaluated

from anneal_core.budget import room_for_another_go
from anneal_core.state import Attempt, RunState


class Response(StrEnum):
    """What follows from a mode. A skill declares one of these for each mode of its own."""

    KEEP = "keep"
    REVERT = "revert"
    DEFER = "defer"  # keep the change; the last word comes after the queue
    BAN = "ban"  # take back, and tell memory that this script does not work on this kind of machine
    RETRY = "retry"  # take back, and try the same script once more
    ESCALATE = "escalate"  # take back, and leave the item to a person at once

    @property
    def takes_back(self) -> bool:
        """Whether the change is undone."""
        return self not in (Response.KEEP, Response.DEFER)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """mode is empty where the attempt worked. force: restore even if no file differs, since running state may."""

    mode: str
    response: Response
    detail: str
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table. facts: what fits, in words for the document."""

    facts: str
    fits: Callable[[Applied, Evaluated | None], bool]
    mode: str
    response: Response
    detail: Callable[[Applied, Evaluated | None], str]
    force: bool = False


# Outcomes that end an item well; a rule that no longer applies cannot fail.
HOLDS = frozenset({Outcome.PASS, Outcome.NOT_APPLICABLE})
# Tries of one script that the mode's response `retry` allows, the first included.
TRIES_OF_A_SCRIPT = 2


def _holds(e: Evaluated | None) -> bool:
    return e is not None and e.outcome in HOLDS


# Carrying it out already decides: the evaluator need not look.
_APPLIED = (
    Row(
        facts="the target was lost while it ran",
        fits=lambda a, _: a.state == "unreachable",
        mode=CoreMode.TARGET_UNREACHABLE,
        response=Response.REVERT,
        detail=lambda a, _: a.detail,
        force=True,
    ),
    Row(
        facts="it was cut off a second time",
        fits=lambda a, _: a.state == "interrupted",
        mode=CoreMode.APPLY_ERROR,
        response=Response.REVERT,
        detail=lambda a, _: a.detail or "it was cut off, and its end is not known",
        force=True,
    ),
    Row(
        facts="it could not be carried out",
        fits=lambda a, _: a.state == "error",
        mode=CoreMode.APPLY_ERROR,
        response=Response.REVERT,
        detail=lambda a, _: a.detail,
    ),
    Row(
        facts="it ran out of its time",
        fits=lambda a, _: a.timed_out,
        mode=CoreMode.APPLY_ERROR,
        response=Response.REVERT,
        detail=lambda a, _: a.detail or "the script ran out of its time",
        force=True,
    ),
)
_JUDGED = (
    Row(
        facts="something got worse: reach, sudo, a unit, a mission service",
        fits=lambda _, e: e is not None and bool(e.worse),
        mode=CoreMode.HEALTH_FAILURE,
        response=Response.REVERT,
        detail=lambda _, e: "; ".join(e.worse) if e else "",
        force=True,
    ),
    Row(
        facts="the check holds, exit code 0",
        fits=lambda a, e: _holds(e) and a.exit_code == 0,
        mode="",
        response=Response.KEEP,
        detail=lambda _, __: "",
    ),
    Row(
        facts="the check holds, another exit code",
        fits=lambda _, e: _holds(e),
        mode=CoreMode.FALSE_NEGATIVE,
        response=Response.KEEP,
        detail=lambda a, _: f"the script ended with {a.exit_code}, but the check holds",
    ),
)
# Between these and those above comes the mode that the skill recognised, with the response that it declares.
_FAILED = (
    Row(
        facts="the check fails, exit code not 0",
        fits=lambda a, _: a.exit_code != 0,
        mode=CoreMode.CLEAN_FAILURE,
        response=Response.REVERT,
        detail=lambda a, _: f"the script ended with {a.exit_code} and the check still fails",
    ),
    Row(
        facts="the check fails, exit code 0, healthy",
        fits=lambda _, __: True,
        mode=CoreMode.EVALUATOR_GAP,
        response=Response.REVERT,
        detail=lambda _, __: "the script ended well and the machine is healthy, but the check still fails",
    ),
)
TABLE = (*_APPLIED, *_JUDGED, *_FAILED)


def may_apply_again(state: RunState, attempt: Attempt, at: float) -> bool:
    """An action that was cut off is applied anew once, on a target put back to before it; then it is at fault."""
    cut_off = attempt.applied is not None and attempt.applied.state == "interrupted"
    once = cut_off and attempt.interruptions == 0 and state.access is not None and state.access.can_snapshot
    return once and room_for_another_go(state, at)


def of_apply(applied: Applied) -> Diagnosis | None:
    """The diagnosis where carrying the action out already decides; None: the evaluator has to look."""
    row = next((r for r in _APPLIED if r.fits(applied, None)), None)
    if row is None:
        return None
    return Diagnosis(mode=row.mode, response=row.response, detail=row.detail(applied, None), force=row.force)


def of_evaluation(applied: Applied, evaluated: Evaluated, policy: SkillPolicy | None) -> Diagnosis:
    """The diagnosis once the evaluator has spoken."""
    declared = {m.name: m.response for m in policy.modes} if policy else {}
    for row in (*_JUDGED, *_FAILED):
        if row is _FAILED[0] and evaluated.skill_mode in declared:
            response = Response(declared[evaluated.skill_mode])
            return Diagnosis(mode=evaluated.skill_mode, response=response, detail=evaluated.detail)
        if row.fits(applied, evaluated):
            detail = row.detail(applied, evaluated)
            return Diagnosis(mode=row.mode, response=row.response, detail=detail, force=row.force)
    raise AssertionError("the last row fits everything")
