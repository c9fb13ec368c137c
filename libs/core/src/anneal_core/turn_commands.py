"""The messages of model turns and probes: everything that a turn is told comes from the state."""

from typing import Any

from anneal_contracts.base import PastAttempt
from anneal_contracts.turns import ChooseItem, Learn, PlanItem, Probe, Propose, ReviewItem

from anneal_core import turns
from anneal_core.budget import calls_left, tokens_left
from anneal_core.events import Ending
from anneal_core.state import ItemState, Pending, RunState

# Ends of the items before, as the Architect is told them.
_STORY = 8


def past_attempts(item: ItemState) -> tuple[PastAttempt, ...]:
    """The facts of the attempts that ended, for a model's prompt."""
    return tuple(
        PastAttempt(
            number=a.number,
            source=a.candidate.source,
            title=a.candidate.title,
            failure_mode=a.mode,
            evidence=a.evaluated.evidence if a.evaluated else "",
            output=a.applied.output if a.applied else "",
            content_blob=a.candidate.blob,
            changed_paths=a.restored.changed_paths if a.restored and a.ending is not Ending.KEPT else (),
        )
        for a in item.attempts
        if a.ending is not None
    )


def turn_on(
    state: RunState, pending: Pending, item: ItemState, common: dict[str, Any]
) -> Propose | Learn | PlanItem | ReviewItem | Probe:
    """The message of a turn on an item, or of a question about it. Raises ValueError for any other command."""
    assert state.spec is not None
    if pending.kind == "probe":
        return Probe(**common, item_id=pending.item_id, call=item.asked[0])
    limits, facts = state.limits.roles, turns.known(item)
    told = {
        **common,
        "item": item.detail,
        "past": past_attempts(item),
        "model_profile": state.spec.model_profile,
        "facts": tuple(k.fact for k in facts),
        "lessons": tuple(x.said.lesson for x in item.lessons if x.said.lesson is not None),
        "recalled": tuple(r for r in item.recalled if r.kind == "lesson"),
        "strategy": turns.strategy(item),
        "calls_left": calls_left(state, item),
        "tokens_left": tokens_left(state, item),
        "attempt": pending.attempt,
    }
    match pending.kind:
        case "propose":
            can_snapshot = state.access is not None and state.access.can_snapshot
            left = max(0, limits.probes - len(item.facts))
            return Propose(
                **told,
                can_snapshot=can_snapshot,
                fingerprint=state.fingerprint,
                probes_now=min(limits.probes_now, left),
                probes_left=left,
            )
        case "learn":
            return Learn(**told)
        case "plan_item":
            return PlanItem(**told, fingerprint=state.fingerprint)
        case "review_item":
            left = turns.tries_left(state, item)
            return ReviewItem(**told, why=pending.why, tries_left=left, fingerprint=state.fingerprint)
    raise ValueError(f"{pending.kind} is no turn on an item")


def choosing(state: RunState, pending: Pending, common: dict[str, Any]) -> ChooseItem:
    """The message of a choice among items, with what came of those before."""
    assert state.spec is not None
    ended = [state.items[i] for i in state.order if state.items[i].reason]
    ended.sort(key=lambda i: i.attempts[-1].ended_at if i.attempts else 0.0)
    story = tuple(f"{i.detail.id}: {i.state.value}: {i.reason[:200]}" for i in ended[-_STORY:])
    return ChooseItem(
        **common,
        items=tuple(state.items[i].detail for i in pending.offered),
        story=story,
        model_profile=state.spec.model_profile,
        calls_left=calls_left(state),
    )
