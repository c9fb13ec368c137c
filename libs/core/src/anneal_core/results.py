"""What the result of a command makes of a state; a command that cannot be carried out has one as well."""

from collections.abc import Callable
from typing import Any

from anneal_contracts.facts import DeferredItemOutcome, Health, Outcome
from anneal_contracts.work import (
    Acquired,
    Applied,
    DeferredResolved,
    Discovered,
    Evaluated,
    Failed,
    GroupEvaluated,
    HealthChecked,
    LookedAgain,
    Planned,
    Recorded,
    Reflected,
    Released,
    Restored,
    Result,
    Snapshotted,
    Verified,
)

from anneal_core import triage, turn_results
from anneal_core.events import ItemStateName
from anneal_core.folding import spent, with_attempt, with_item
from anneal_core.machine import IllegalEvent
from anneal_core.records import replace
from anneal_core.state import ItemState, Pending, RunState


def fold_result(state: RunState, pending: Pending, result: Result, at: float) -> RunState:
    """The state with a command's result in it. Raises IllegalEvent for a result that such a command cannot have."""
    expected = _RESULT_OF[pending.kind]
    if not isinstance(result, expected):
        raise IllegalEvent(f"{pending.kind} cannot end in {result.kind}")
    return _RESULTS[expected](state, pending, result, at)


def gave_up(state: RunState, pending: Pending, failed: Failed, at: float) -> RunState:
    """A command that cannot be carried out becomes a result that says so, or ends the run."""
    cid, text = pending.command_id, f"{failed.reason}: {failed.message}"
    note = f"{pending.kind}: {text}"
    if pending.kind == "apply":
        state_name = "unreachable" if failed.reason == "target_unreachable" else "error"
        return _applied(state, pending, Applied(command_id=cid, state=state_name, detail=text), at)
    if pending.kind == "evaluate":
        lost = Health(reachable=False, detail=text)
        result = Evaluated(command_id=cid, outcome=Outcome.ERROR, health=lost, worse=(note,))
        return _evaluated(state, pending, result, at)
    if pending.kind == "evaluate_group":
        lost = Health(reachable=False, detail=text)
        found = Evaluated(command_id=cid, outcome=Outcome.ERROR, health=lost, worse=(note,))
        results = GroupEvaluated(command_id=cid, items=dict.fromkeys(state.group, found))
        return _group_evaluated(state, pending, results, at)
    if pending.kind == "gate":
        return replace(state, halt=f"the gate behind wave {state.wave + 1} could not be asked: {text}")
    if pending.kind == "look_again":  # the re-scan will find it
        return replace(state, looked_again=True, notes=(*state.notes, note))
    if pending.kind == "resolve_deferred":
        return replace(state, resolved=state.resolved | {pending.mode}, notes=(*state.notes, note))
    if pending.kind in turn_results.RESULT_OF:
        return turn_results.gave_up(state, pending, failed)
    if pending.kind == "reflect":
        return _reflected(state, pending, Reflected(command_id=cid, detail=text), at)
    if pending.kind == "record":
        return replace(state, recorded=True, notes=(*state.notes, note))
    if pending.kind == "plan" and state.round > 0:  # the run's own work is done and scored: only the mending is lost
        return replace(state, planned=True, notes=(*state.notes, note))
    if pending.kind == "release":
        return replace(state, released=True, notes=(*state.notes, note))
    return replace(state, failure=state.failure or note)


def _acquired(state: RunState, _p: Pending, r: Acquired, _at: float) -> RunState:
    return replace(state, fencing_token=r.fencing_token, access=r.access)


def _discovered(state: RunState, _p: Pending, r: Discovered, _at: float) -> RunState:
    return replace(
        state,
        found={i.id: i for i in r.items},
        before=r.score,
        outcomes_before=r.outcomes,
        fingerprint=r.fingerprint,
        health=r.health,
        artifacts={**state.artifacts, **r.artifacts},
        notes=(*state.notes, *r.notes),
    )


def _planned(state: RunState, _p: Pending, r: Planned, _at: float) -> RunState:
    ladders = {**state.ladders, **{x.item_id: x.candidates for x in r.ladders}}
    after = {**state.after_those, **r.after}
    return replace(
        state,
        ladders=ladders,
        recalled={**state.recalled, **{x.item_id: x.recalled for x in r.ladders}},
        usual={**state.usual, **{x.item_id: x.usual_s for x in r.ladders}},
        planned=True,
        model_may=r.model_may,
        after_those=after,
    )


def _timed(state: RunState, pending: Pending, part: str, took_s: float, at: float) -> RunState:
    """Adds what the supervisor waited, and what the doer says it took, to the attempt's parts; a group shares them."""
    item_ids = state.group if pending.group else (pending.item_id,)
    waited = max(0.0, at - pending.issued_at) / len(item_ids)
    for item_id in item_ids:
        item = state.items.get(item_id)
        attempt = item.open_attempt if item else None
        if attempt is None:
            continue
        parts = {**attempt.parts, part: round(attempt.parts.get(part, 0.0) + waited, 6)}
        inner = {**attempt.inner, part: round(attempt.inner.get(part, 0.0) + took_s / len(item_ids), 6)}
        state = with_attempt(state, item_id, parts=parts, inner=inner)
    return state


def _applied(state: RunState, pending: Pending, r: Applied, at: float) -> RunState:
    if pending.kind == "undo":
        return _undone(state, pending, r, at)
    state = _timed(state, pending, "apply", r.took_s, at)
    return with_attempt(state, pending.item_id, applied=r)


def _undone(state: RunState, pending: Pending, r: Applied, at: float) -> RunState:
    """Taken back by script. Where that fails nobody knows the machine's state any more: the run must not go on."""
    state = _restored(state, pending, Restored(command_id=r.command_id, restored=True, took_s=r.took_s), at)
    if r.state == "applied" and r.exit_code == 0:
        return state
    why = r.detail or f"it ended with {r.exit_code}"
    return replace(state, failure=state.failure or f"{pending.item_id} could not be taken back: {why}")


def _evaluated(state: RunState, pending: Pending, r: Evaluated, at: float) -> RunState:
    state = _timed(state, pending, "evaluate", r.took_s, at)
    return with_attempt(state, pending.item_id, evaluated=r)


def resolve(state: RunState, mode: str, outcome: DeferredItemOutcome) -> RunState:
    """The last word on one deferred item. Raises IllegalEvent where it does not wait for it."""

    def change(item: ItemState) -> ItemState:
        if item.state is not ItemStateName.DEFERRED or item.attempts[-1].mode != mode:
            raise IllegalEvent(f"item {outcome.item_id} does not wait for the end in mode {mode}")
        return replace(item, state=ItemStateName(outcome.state), reason=outcome.reason)

    return with_item(state, outcome.item_id, change)


def _looked_again(state: RunState, _p: Pending, r: LookedAgain, _at: float) -> RunState:
    found = {**state.found, **{d.id: d for d in r.items}}
    return replace(state, found=found, newly=tuple(d.id for d in r.items), looked_again=True)


def _deferred_resolved(state: RunState, pending: Pending, r: DeferredResolved, _at: float) -> RunState:
    for outcome in r.outcomes:
        item = state.items.get(outcome.item_id)
        told_on_the_way = item is not None and item.state in (ItemStateName.COMPLETED, ItemStateName.ESCALATED)
        state = state if told_on_the_way else resolve(state, pending.mode, outcome)
    waiting = [i for i in state.items.values() if i.state is ItemStateName.DEFERRED]
    if left := [i.detail.id for i in waiting if i.attempts[-1].mode == pending.mode]:
        raise IllegalEvent(f"{len(left)} items of mode {pending.mode} have no outcome, {left[0]} among them")
    return replace(state, resolved=state.resolved | {pending.mode})


def _group_evaluated(state: RunState, pending: Pending, r: GroupEvaluated, at: float) -> RunState:
    if pending.kind == "gate":
        return replace(state, gate=r)
    if set(r.items) != set(state.group):
        raise IllegalEvent(f"verdicts for {len(r.items)} items, and the group has {len(state.group)}")
    state = _timed(state, pending, "evaluate", r.took_s, at)
    for item_id, evaluated in r.items.items():
        state = with_attempt(state, item_id, evaluated=evaluated)
    return state


def _snapshotted(state: RunState, pending: Pending, r: Snapshotted, at: float) -> RunState:
    state = replace(_timed(state, pending, "keep", r.took_s, at), generation=r.generation, settled=False)
    if state.origin is not None and not state.origin.based:
        state = replace(state, origin=replace(state.origin, based=True))
    for item_id in state.group if pending.group else (pending.item_id,) if pending.item_id else ():
        state = with_attempt(state, item_id, generation=r.generation)
    return state


def _restored(state: RunState, pending: Pending, r: Restored, at: float) -> RunState:
    if pending.kind == "rewind":
        return _rewound(state)
    state = replace(_timed(state, pending, "revert", r.took_s, at), booted=state.booted or r.restored)
    if pending.group:
        for item_id in state.group:
            state = with_attempt(state, item_id, restored=r)
        return state
    if not pending.item_id:
        return replace(state, settled=True)
    attempt = state.items[pending.item_id].open_attempt
    if attempt is not None and triage.may_apply_again(state, attempt, at):
        return with_attempt(state, pending.item_id, applied=None, interruptions=attempt.interruptions + 1)
    return with_attempt(state, pending.item_id, restored=r)


def _rewound(state: RunState) -> RunState:
    """The target was booted on the fork's generation; where it was never looked at, there is nothing to compare."""
    assert state.origin is not None
    return replace(state, origin=replace(state.origin, rewound=True), booted=state.before is not None)


def _health_checked(state: RunState, _p: Pending, r: HealthChecked, _at: float) -> RunState:
    before = state.health or r.health
    new = sorted(set(r.health.failed_units) - set(before.failed_units))
    notes = tuple(f"unit {u} is failed since a boot on generation {state.generation}" for u in new)
    failed = tuple(sorted({*before.failed_units, *r.health.failed_units}))
    failure = state.failure or ("" if r.health.reachable else f"target lost after a restore: {r.health.detail}")
    merged = before.model_copy(update={"failed_units": failed})
    return replace(state, health=merged, booted=False, notes=(*state.notes, *notes), failure=failure)


def _reflected(state: RunState, pending: Pending, r: Reflected, _at: float) -> RunState:
    return spent(with_item(state, pending.item_id, lambda i: replace(i, reflection=r)), pending.item_id, r.usage)


def _verified(state: RunState, _p: Pending, r: Verified, _at: float) -> RunState:
    items = {k: replace(v, final=r.outcomes.get(k)) for k, v in state.items.items()}
    return replace(
        state,
        after=r.score,
        outcomes_after=r.outcomes,
        health_after=r.health,
        artifacts={**state.artifacts, **r.artifacts},
        found={**state.found, **{d.id: d for d in (*r.regressed, *r.became_applicable)}},
        items=items,
        verified=True,
    )


def _recorded(state: RunState, _p: Pending, _r: Recorded, _at: float) -> RunState:
    return replace(state, recorded=True)


def _released(state: RunState, _p: Pending, _r: Released, _at: float) -> RunState:
    return replace(state, released=True)


_RESULT_OF: dict[str, type] = {
    "acquire": Acquired,
    "snapshot": Snapshotted,
    "discover": Discovered,
    "plan": Planned,
    **turn_results.RESULT_OF,
    "apply": Applied,
    "undo": Applied,
    "evaluate": Evaluated,
    "evaluate_group": GroupEvaluated,
    "gate": GroupEvaluated,
    "look_again": LookedAgain,
    "resolve_deferred": DeferredResolved,
    "restore": Restored,
    "rewind": Restored,
    "check_health": HealthChecked,
    "reflect": Reflected,
    "verify": Verified,
    "record": Recorded,
    "release": Released,
}

_RESULTS: dict[type, Callable[[RunState, Pending, Any, float], RunState]] = {
    Acquired: _acquired,
    Snapshotted: _snapshotted,
    Discovered: _discovered,
    Planned: _planned,
    **turn_results.RESULTS,
    Applied: _applied,
    Evaluated: _evaluated,
    GroupEvaluated: _group_evaluated,
    LookedAgain: _looked_again,
    DeferredResolved: _deferred_resolved,
    Restored: _restored,
    HealthChecked: _health_checked,
    Reflected: _reflected,
    Verified: _verified,
    Recorded: _recorded,
    Released: _released,
}
