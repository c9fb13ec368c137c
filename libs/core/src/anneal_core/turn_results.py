"""What the results of model turns and of probes make of a state; a turn that cannot be taken has one as well."""

from collections.abc import Callable
from typing import Any

from anneal_contracts.facts import CoreMode, ProbeState
from anneal_contracts.turns import Chosen, Decided, Fact, Learnt, Probed, Proposed
from anneal_contracts.work import Failed

from anneal_core.folding import spent, with_item
from anneal_core.machine import IllegalEvent
from anneal_core.records import replace
from anneal_core.state import Afterthought, Engagement, ItemState, Known, Pending, RunState


def gave_up(state: RunState, pending: Pending, failed: Failed) -> RunState:
    """A turn without an answer: the item goes on without it."""
    cid, mode, detail = pending.command_id, failed.reason, failed.message
    match pending.kind:
        case "propose":
            return _proposed(state, pending, Proposed(command_id=cid, mode=mode, detail=detail), 0.0)
        case "probe":
            text = f"{mode}: {detail}"
            return _probed(state, pending, Probed(command_id=cid, state=ProbeState.FAILED, detail=text), 0.0)
        case "learn":
            return _learnt(state, pending, Learnt(command_id=cid, mode=mode, detail=detail), 0.0)
        case "choose_item":
            return _chosen(state, pending, Chosen(command_id=cid, mode=mode, detail=detail), 0.0)
    return _decided(state, pending, Decided(command_id=cid, mode=mode, detail=detail), 0.0)


def _proposed(state: RunState, pending: Pending, r: Proposed, _at: float) -> RunState:
    limits = state.limits.roles

    def change(item: ItemState) -> ItemState:
        room = min(limits.probes_now, limits.probes - len(item.facts))
        if r.probes and room > 0:
            return replace(item, asked=r.probes[:room])
        # Questions beyond the bound lead to nothing, like an answer that breaks its contract.
        beyond = {"mode": CoreMode.CONTRACT_VIOLATION.value, "detail": "it asked for more facts than it may"}
        told = r.model_copy(update={"probes": (), **beyond}) if r.probes else r
        fresh = r.candidate is not None and all(r.candidate.hash != c.hash for c in item.ladder)
        ladder = (*item.ladder, r.candidate) if r.candidate is not None and fresh else item.ladder
        return replace(item, proposals=(*item.proposals, told), ladder=ladder)

    return spent(with_item(state, pending.item_id, change), pending.item_id, r.usage)


def _probed(state: RunState, pending: Pending, r: Probed, _at: float) -> RunState:
    def change(item: ItemState) -> ItemState:
        if not item.asked:
            raise IllegalEvent(f"nothing was asked about {pending.item_id}")
        fact = Fact(call=item.asked[0], state=r.state, blob=r.blob, detail=r.detail)
        known = Known(fact=fact, attempts=len(item.attempts), size=r.size, redactions=r.redactions)
        return replace(item, asked=item.asked[1:], facts=(*item.facts, known))

    return with_item(state, pending.item_id, change)


def _learnt(state: RunState, pending: Pending, r: Learnt, _at: float) -> RunState:
    thought = Afterthought(attempt=pending.attempt, said=r)
    state = with_item(state, pending.item_id, lambda i: replace(i, lessons=(*i.lessons, thought)))
    return spent(state, pending.item_id, r.usage)


def _decided(state: RunState, pending: Pending, r: Decided, _at: float) -> RunState:
    def change(item: ItemState) -> ItemState:
        engagement = Engagement(
            why=pending.why,
            said=r,
            attempts=len(item.attempts),
            proposals=len(item.proposals),
            lessons=len(item.lessons),
        )
        return replace(item, engagements=(*item.engagements, engagement))

    return spent(with_item(state, pending.item_id, change), pending.item_id, r.usage)


def _chosen(state: RunState, _p: Pending, r: Chosen, _at: float) -> RunState:
    """What the Architect picked; anything but one of those that it was offered leaves it to the order."""
    state = replace(spent(state, "", r.usage), choices=state.choices + 1)
    if r.item_id not in state.offered:
        return state
    state = with_item(state, r.item_id, lambda i: replace(i, chosen_why=r.reason or "it gave no reason"))
    return replace(state, chosen=r.item_id)


# Kind of command -> its result, and result -> what it makes of a state.
RESULT_OF: dict[str, type] = {
    "choose_item": Chosen,
    "plan_item": Decided,
    "review_item": Decided,
    "propose": Proposed,
    "probe": Probed,
    "learn": Learnt,
}
RESULTS: dict[type, Callable[[RunState, Pending, Any, float], RunState]] = {
    Chosen: _chosen,
    Decided: _decided,
    Proposed: _proposed,
    Probed: _probed,
    Learnt: _learnt,
}
