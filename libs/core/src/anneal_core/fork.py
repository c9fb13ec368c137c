"""Forks: a run that goes on from a moment of another one, on a target put back to that moment.

A fork's log begins with the other run's events, chained anew under the fork's own id, and then says so itself
(`run_forked`). What was under way at that moment was under way in the other run: it is dropped here and goes again.
What people agreed to there holds there alone. Time counts from the fork on, steps and tokens go on counting.
"""

from collections.abc import Iterable, Mapping

from anneal_core import chain, graph
from anneal_core import events as ev
from anneal_core.issue import Payloads, issue
from anneal_core.machine import IllegalEvent
from anneal_core.ordering import UNSETTLED, to_mend
from anneal_core.records import replace
from anneal_core.state import Approval, ItemState, Origin, Phase, RunState


def forked(state: RunState, p: ev.RunForked, at: float) -> RunState:
    """The state of the fork at its first moment. Raises IllegalEvent where the past is not the one that is named."""
    possible = (-1, 0) if state.generation < 0 else (state.generation,)
    if state.spec is None or p.seq != state.seq or p.generation not in possible:
        raise IllegalEvent(f"event {p.seq} at generation {p.generation} is not the moment of this fork")
    limits = ev.Limits.model_validate({**state.limits.model_dump(), **p.limits})
    spec = state.spec.model_copy(update={"model_profile": p.model_profile}) if p.model_profile else state.spec
    items = {item_id: _set_free(item) for item_id, item in state.items.items()}
    state = replace(
        state,
        origin=Origin(parent=p.parent, seq=p.seq, hash=p.hash, generation=p.generation, by=p.by),
        limits=limits,
        spec=spec,
        model_may=p.model_may if p.model_profile else state.model_may,
        phase=Phase.IDLE if state.before is None else Phase.RECOVERING,
        created_at=at,
        items=items,
        waiting=frozenset(),
        group=tuple(i for i in state.group if items[i].open_attempt is not None),
        active=_active(state.active, items),
        **_AFRESH,
    )
    return _with_skipped_again(state)


# What a run that has not begun looks like. The rest of the state is the past, and stays.
_AFRESH: dict[str, object] = {
    "pending": {},
    "tries": {},
    "access": None,
    "fencing_token": 0,
    "booted": False,
    "cancel": "",
    "failure": "",
    "reason": "",
    "ended_at": 0.0,
    "paused": False,
    "paused_at": 0.0,
    "paused_s": 0.0,
    "recorded": False,
    "released": False,
}


def _set_free(item: ItemState) -> ItemState:
    """An item without what was under way on it. An attempt whose generation was taken is done but for its end."""
    last = item.open_attempt
    cut = last is not None and last.generation == 0
    attempts = item.attempts[:-1] if cut else item.attempts
    approvals = tuple(_void(a) if a.attempt > len(attempts) else a for a in item.approvals)
    free = replace(item, attempts=attempts, approvals=approvals, inherited=len(attempts))
    if item.state not in UNSETTLED:
        return free
    queued = cut or item.state is ev.ItemStateName.WAITING
    name = ev.ItemStateName.QUEUED if queued else item.state
    return replace(free, state=name, started_at=0.0)


def _void(approval: Approval) -> Approval:
    """A question of the other run's that was not used up: this run asks for itself. A refusal stays one."""
    return replace(approval, state="void") if approval.state in ("asked", "granted") else approval


def _active(active: str, items: Mapping[str, ItemState]) -> str:
    """The item that is being worked: one whose attempt was kept is closed before anything else."""
    kept = (i for i, item in items.items() if item.state is ev.ItemStateName.ACTIVE and _is_kept(item))
    first = next(kept, active)
    return first if first and items[first].state is ev.ItemStateName.ACTIVE else ""


def _is_kept(item: ItemState) -> bool:
    return bool(item.attempts) and item.attempts[-1].ending is ev.Ending.KEPT


def _with_skipped_again(state: RunState) -> RunState:
    """What the bounds or the end of the other run left out has its turn: this run has bounds of its own."""
    again = [i for i in state.order if _was_left_out(state.items[i])]
    if not again or not state.queued or state.halt:
        return state
    fresh = {"state": ev.ItemStateName.QUEUED, "reason": "", "decided_by": "", "missing_input": "", "started_at": 0.0}
    items = {**state.items, **{i: replace(state.items[i], **fresh) for i in again}}
    left = [i for i in state.order if items[i].state is ev.ItemStateName.QUEUED]
    waves = graph.waves(left, {i: items[i].detail for i in left})
    state = replace(state, items=items, waves=waves, wave=0, gate=None, gate_round=0)
    return replace(state, verified=False, settled=False, resolved=frozenset())


def _was_left_out(item: ItemState) -> bool:
    return item.decided_by == ev.DecidedBy.RUN and item.open_attempt is None


def go_back(state: RunState, now: float) -> Payloads:
    """The target back to the moment of the fork, and that kept as the first generation; nothing: it is there."""
    origin = state.origin
    if origin is None or origin.generation < 0 or origin.based:
        return ()
    if not origin.rewound:
        return issue(state, now, "rewind", generation=origin.generation, force=True)
    if state.booted:
        return issue(state, now, "check_health", generation=state.seq)
    return issue(state, now, "snapshot", generation=origin.generation)


def nothing_left(state: RunState) -> bool:
    """Whether all that a run from here would do is to end."""
    assert state.spec is not None
    if not state.queued or state.spec.dry_run:
        return state.queued
    if any(item.state in UNSETTLED for item in state.items.values()):
        return False
    return state.verified and not (to_mend(state) and state.repairs < state.limits.repair_rounds)


def past_head(past: Iterable[chain.Event], parent: str) -> str:
    """The hash with which these events end in the parent's own log."""
    head = chain.GENESIS
    for event in chain.renamed(past, parent):
        head = event.hash
    return head
