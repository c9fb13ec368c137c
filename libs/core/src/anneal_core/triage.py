"""Triage: what an attempt's facts mean and what follows. A table in code, first row that fits wins."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from anneal_contracts.facts import CoreMode, Outcome, SkillPolicy
from anneal_contracts.work import Applied, Evaluated

from anneal_core.state import Attempt, RunState


class Response(StrEnum):
    """What follows from a mode."""

    KEEP = "keep"
    REVERT = "revert"
    DEFER = "defer"  # keep the change; the last word comes after the queue


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """mode is empty where the attempt worked. force: restore even if no file differs, since running state may."""

    mode: str
    response: Response
    detail: str
    force: bool = False


# Outcomes that end an item well; a rule that no longer applies cannot fail.
HOLDS = frozenset({Outcome.PASS, Outcome.NOT_APPLICABLE})

_SKILL_RESPONSES: Mapping[str, Response] = {
    "keep": Response.KEEP,
    "defer": Response.DEFER,
    "revert": Response.REVERT,
    "ban": Response.REVERT,
    "retry": Response.REVERT,
    "escalate": Response.REVERT,
}


def may_apply_again(state: RunState, attempt: Attempt) -> bool:
    """An action that was cut off is applied anew once, on a target put back to before it; then it is at fault."""
    cut_off = attempt.applied is not None and attempt.applied.state == "interrupted"
    return cut_off and attempt.interruptions == 0 and state.access is not None and state.access.can_snapshot


def of_apply(applied: Applied) -> Diagnosis | None:
    """The diagnosis where carrying the action out already decides; None: the evaluator has to look."""
    if applied.state == "unreachable":
        return Diagnosis(mode=CoreMode.TARGET_UNREACHABLE, response=Response.REVERT, detail=applied.detail, force=True)
    if applied.state == "interrupted":
        detail = applied.detail or "it was cut off, and its end is not known"
        return Diagnosis(mode=CoreMode.APPLY_ERROR, response=Response.REVERT, detail=detail, force=True)
    if applied.state == "error":
        return Diagnosis(mode=CoreMode.APPLY_ERROR, response=Response.REVERT, detail=applied.detail)
    if applied.timed_out:
        detail = applied.detail or "the script ran out of its time"
        return Diagnosis(mode=CoreMode.APPLY_ERROR, response=Response.REVERT, detail=detail, force=True)
    return None


def of_evaluation(applied: Applied, evaluated: Evaluated, policy: SkillPolicy | None) -> Diagnosis:
    """The diagnosis once the evaluator has spoken."""
    if evaluated.worse:
        detail = "; ".join(evaluated.worse)
        return Diagnosis(mode=CoreMode.HEALTH_FAILURE, response=Response.REVERT, detail=detail, force=True)
    if evaluated.outcome in HOLDS:
        if applied.exit_code == 0:
            return Diagnosis(mode="", response=Response.KEEP, detail="")
        detail = f"the script ended with {applied.exit_code}, but the check holds"
        return Diagnosis(mode=CoreMode.FALSE_NEGATIVE, response=Response.KEEP, detail=detail)
    declared = {m.name: m.response for m in policy.modes} if policy else {}
    if evaluated.skill_mode in declared:
        response = _SKILL_RESPONSES[declared[evaluated.skill_mode]]
        return Diagnosis(mode=evaluated.skill_mode, response=response, detail=evaluated.detail)
    if applied.exit_code != 0:
        detail = f"the script ended with {applied.exit_code} and the check still fails"
        return Diagnosis(mode=CoreMode.CLEAN_FAILURE, response=Response.REVERT, detail=detail)
    detail = "the script ended well and the machine is healthy, but the check still fails"
    return Diagnosis(mode=CoreMode.EVALUATOR_GAP, response=Response.REVERT, detail=detail)
