"""The report's wording: states, rungs, failure modes and endings in plain words."""

from collections.abc import Mapping
from typing import Any

# State -> a mark that tells it apart without colour, and its meaning.
STATES: Mapping[str, tuple[str, str]] = {
    "completed": ("✓", "mended, and the check holds"),
    "active": ("▸", "being worked on"),
    "waiting": ("?", "a person is asked whether a destructive action may run"),
    "escalated": ("!", "given up, a person has to look"),
    "deferred": ("◷", "settled later, for example by a reboot"),
    "skipped": ("–", "left out, with the reason"),
    "queued": ("·", "not yet begun"),
}

RUNGS: Mapping[str, str] = {
    "vendor": "shipped with the security content",
    "curated": "written and tested for this skill",
    "recalled": "worked before on a machine of this kind",
    "model": "written by the model, checked by policy",
}

_MODES: Mapping[str, str] = {
    "health_failure": "the machine got worse",
    "evaluator_gap": "it ran and the machine stayed healthy, but the check still fails",
    "false_negative": "the script reported a failure, but the check holds",
    "clean_failure": "the script reported a failure and the check still fails",
    "apply_error": "the script could not be carried out",
    "policy_denied": "policy does not allow it",
    "contract_violation": "the model gave no answer that keeps its contract",
    "missing_input": "something is missing that only a person can supply",
    "target_unreachable": "the target did not answer",
    "group_reverted": "a script of its group failed, so all of the group was taken back and tried one by one",
    "budget_exhausted": "the budget was used up",
    "model_unavailable": "the model could not be reached",
}

_RUN_STATES: Mapping[str, str] = {
    "finished": "good",
    "failed": "bad",
    "cancelled": "warn",
}


def mode(name: str) -> str:
    """A failure mode in words; a skill's own mode by its name."""
    return _MODES.get(name, name.replace("_", " "))


def tone(state: str) -> str:
    """How a run's state is coloured."""
    return _RUN_STATES.get(state, "busy")


def ending(attempt: Mapping[str, Any]) -> str:
    """What came of an attempt, as a sentence."""
    why = mode(attempt["failure_mode"]) if attempt["failure_mode"] else ""
    match attempt["ending"]:
        case "kept":
            start = f"Kept although {why}" if why else "Kept: the check holds and the machine is as healthy as before"
            return f"{start}. Saved as generation {attempt['generation']}." if attempt["generation"] else f"{start}."
        case "reverted":
            return f"Undone: {why or 'it did not help'}. The machine was brought back to the state before."
        case "unchanged":
            return f"Failed: {why or 'it did not help'}. It had changed nothing, so there was nothing to undo."
        case "refused":
            return f"Never ran: {attempt['policy'] or why or 'policy does not allow it'}."
        case _:
            return "Under way."


def seconds(value: float) -> str:
    """A duration as people say it."""
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"


def number(value: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")
