"""`evolve`: one event further. Pure, total over the events that the engine itself writes, and strict about the rest."""

from collections.abc import Callable
from functools import partial
from typing import Any

from anneal_contracts.facts import CoreMode
from anneal_contracts.work import Failed, Result

from anneal_core import events as ev
from anneal_core.budget import BACKGROUND, STEP_KINDS, may_try_again
from anneal_core.chain import Event
from anneal_core.folding import try_key, with_attempt, with_item
from anneal_core.fork import forked
from anneal_core.machine import IllegalEvent, next_phase
from anneal_core.records import replace
from anneal_core.results import fold_result, gave_up, resolve
from anneal_core.state import Approval, Attempt, ItemState, Pending, Phase, RunState


def evolve(state: RunState, event: Event, payload: ev.Payload | None = None) -> RunState:
    """The state after event. Raises IllegalEvent where it does not fit; state itself never changes.

    payload: the event's own, where the caller still has it as a record; it need not be read from its data again.
    """
    if event.seq != state.seq + 1:
        raise IllegalEvent(f"event {event.seq} after {state.seq}")
    payload = payload or ev.parse(event.payload)
    if state.ended and not isinstance(payload, ev.RunForked):
        raise IllegalEvent(f"{payload.type} after the end of the run")
    after = _HANDLERS[type(payload)](state, payload, event.at)
    return replace(after, run_id=event.run_id, seq=event.seq, head=event.hash)


def _created(state: RunState, p: ev.RunCreated, at: float) -> RunState:
    if state.spec is not None:
        raise IllegalEvent("a run is created once")
    if not 1 <= p.engine <= ev.ENGINE:
        raise IllegalEvent(f"the run wants engine {p.engine}, and this one knows up to {ev.ENGINE}")
    return replace(state, engine=p.engine, spec=p.spec, limits=p.limits, policy=p.policy, created_at=at)


def _issued(state: RunState, p: ev.CommandIssued, at: float) -> RunState:
    if p.command_id in state.pending:
        raise IllegalEvent(f"command {p.command_id} is under way")
    phase = next_phase(state.phase, p.kind)
    pending = Pending(**p.model_dump(exclude={"type"}), issued_at=at, seq=state.seq + 1)
    state = replace(
        state,
        phase=phase,
        pending={**state.pending, p.command_id: pending},
        steps=state.steps + (p.kind in STEP_KINDS),
        reflections=state.reflections + (p.kind == "reflect"),
        offered=p.offered or state.offered,
    )
    item = state.items.get(p.item_id)
    if item is not None and not item.started_at and p.kind not in BACKGROUND:
        state = with_item(state, p.item_id, partial(_begun, at=at))
    if p.kind == "plan" and state.queued:
        repairs = state.repairs + state.verified
        return replace(state, round=state.round + 1, repairs=repairs, verified=False, planned=False, queued=False)
    return state


def _begun(item: ItemState, *, at: float) -> ItemState:
    """An item on which something is done: its time runs from the first of it."""
    return replace(item, started_at=item.started_at or at)


def _expired(state: RunState, p: ev.CommandExpired, at: float) -> RunState:
    failed = Failed(command_id=p.command_id, reason="deadline_exceeded", message="no result in time", retryable=True)
    return _finished(state, ev.CommandFinished(command_id=p.command_id, result=failed), at)


def _finished(state: RunState, p: ev.CommandFinished, at: float) -> RunState:
    pending = state.pending.get(p.command_id)
    if pending is None:
        raise IllegalEvent(f"nobody waits for command {p.command_id}")
    rest = {k: v for k, v in state.pending.items() if k != p.command_id}
    state = replace(state, pending=rest)
    result: Result = p.result
    if isinstance(result, Failed):
        key = try_key(pending.kind, pending.item_id, pending.attempt, pending.generation)
        used = state.tries.get(key, 0) + 1
        state = replace(state, tries={**state.tries, key: used})
        if result.retryable and used < state.limits.command_tries and may_try_again(state, pending, at):
            return state
        return gave_up(state, pending, result, at)
    return fold_result(state, pending, result, at)


def _queued(state: RunState, p: ev.ItemsQueued, _at: float) -> RunState:
    items = dict(state.items)
    for item_id in (*p.order, *p.skipped):
        if item_id not in state.found:
            raise IllegalEvent(f"item {item_id} was never found")
        items[item_id] = ItemState(
            detail=state.found[item_id],
            ladder=state.ladders.get(item_id, ()),
            recalled=state.recalled.get(item_id, ()),
            usual_s=state.usual.get(item_id, 0.0),
        )
    for item_id, reason in p.skipped.items():
        items[item_id] = replace(items[item_id], state=ev.ItemStateName.SKIPPED, reason=reason)
    before = set(state.order)
    known = (*state.order, *(i for i in (*p.order, *p.skipped) if i not in before))
    return replace(state, items=items, order=known, queued=True, waves=p.waves, wave=0, gate=None, gate_round=0)


def _refused(state: RunState, p: ev.RunRefused, _at: float) -> RunState:
    return replace(state, failure=state.failure or p.reason)


def _assessed(state: RunState, p: ev.GoalAssessed, _at: float) -> RunState:
    if state.goal:
        raise IllegalEvent("a goal is assessed once")
    return replace(state, goal=p.level, goal_reasons=p.reasons, gates=p.gates)


def _gate_failed(state: RunState, p: ev.GateFailed, _at: float) -> RunState:
    if state.gate is None or p.wave != state.wave:
        raise IllegalEvent(f"the gate behind wave {p.wave} was not asked")
    for diagnosis in p.diagnoses:
        if diagnosis.action == "halt":
            state = replace(state, halt=f"the gate behind wave {p.wave + 1} failed: {diagnosis.cause}")
            continue
        reopen = diagnosis.action == "reopen"
        undone = partial(_undone, diagnosis=diagnosis, reopen=reopen)
        state = with_item(state, diagnosis.item_id, undone)
    return replace(state, gate=None, gate_round=state.gate_round + 1, diagnoses=(*state.diagnoses, *p.diagnoses))


def _undone(item: ItemState, *, diagnosis: ev.GateDiagnosis, reopen: bool) -> ItemState:
    """An item that held and was found undone: back into the queue with a clean slate, or to a person."""
    if reopen:
        fresh = replace(item, state=ev.ItemStateName.QUEUED, reason="", rung="", since=len(item.attempts))
        return replace(fresh, started_at=0.0, asked=())
    return replace(item, state=ev.ItemStateName.ESCALATED, reason=f"it held, and then no longer: {diagnosis.cause}")


def _wave_closed(state: RunState, p: ev.WaveClosed, _at: float) -> RunState:
    if p.wave != state.wave:
        raise IllegalEvent(f"wave {p.wave} is not the present one")
    return replace(state, wave=state.wave + 1, gate=None, gate_round=0)


def _deferred_progress(state: RunState, p: ev.DeferredProgress, _at: float) -> RunState:
    pending = state.pending.get(p.command_id)
    if pending is None or pending.kind != "resolve_deferred":
        raise IllegalEvent(f"nobody waits for command {p.command_id}")
    return resolve(state, pending.mode, p.outcome) if p.outcome else state


def _attempt_started(state: RunState, p: ev.AttemptStarted, at: float) -> RunState:
    def change(item: ItemState) -> ItemState:
        if item.open_attempt is not None or p.attempt != len(item.attempts) + 1:
            raise IllegalEvent(f"attempt {p.attempt} at {p.item_id} does not follow")
        candidate = next((c for c in item.ladder if c.hash == p.candidate), None)
        if candidate is None:
            raise IllegalEvent(f"{p.candidate} is no rung of {p.item_id}")
        attempt = Attempt(number=p.attempt, candidate=candidate, started_at=at, group=p.group)
        item = _begun(item, at=at)
        return replace(item, state=ev.ItemStateName.ACTIVE, attempts=(*item.attempts, attempt))

    if p.group != (state.groups if state.group else p.group and state.groups + 1):
        raise IllegalEvent(f"attempt {p.attempt} at {p.item_id} is not of the open group")
    group = (*state.group, p.item_id) if p.group else ()
    state = replace(with_item(state, p.item_id, change), active=p.item_id)
    return replace(state, group=group, groups=max(state.groups, p.group))


def _attempt_ended(state: RunState, p: ev.AttemptEnded, at: float) -> RunState:
    state = with_attempt(
        state,
        p.item_id,
        ending=p.ending,
        mode=p.mode,
        response=p.response,
        detail=p.detail,
        generation=p.generation,
        ended_at=at,
    )
    state = replace(state, group=tuple(i for i in state.group if i != p.item_id))
    if p.mode != CoreMode.GROUP_REVERTED:
        return state
    state = with_item(state, p.item_id, lambda i: replace(i, state=ev.ItemStateName.QUEUED, started_at=0.0))
    return replace(state, active="" if state.active == p.item_id else state.active)


def _item_closed(state: RunState, p: ev.ItemClosed, _at: float) -> RunState:
    def close(item: ItemState) -> ItemState:
        closed = replace(item, state=p.state, reason=p.reason, rung=p.rung)
        return replace(closed, decided_by=p.decided_by, missing_input=p.missing_input)

    state = with_item(state, p.item_id, close)
    return replace(
        state,
        active="" if state.active == p.item_id else state.active,
        chosen="" if state.chosen == p.item_id else state.chosen,
    )


def _approval_asked(state: RunState, p: ev.ApprovalAsked, at: float) -> RunState:
    asked = Approval(action_hash=p.action_hash, attempt=p.attempt, title=p.title, asked_at=at, expires_at=p.expires_at)

    def change(item: ItemState) -> ItemState:
        return replace(item, state=ev.ItemStateName.WAITING, approvals=(*item.approvals, asked))

    state = with_item(state, p.item_id, change)
    # Until the answer the others go on: it is neither the active one nor the Architect's choice any more.
    return replace(
        state,
        active="" if state.active == p.item_id else state.active,
        chosen="" if state.chosen == p.item_id else state.chosen,
    )


def _approval_answered(state: RunState, p: ev.ApprovalAnswered, at: float) -> RunState:
    said = "granted" if p.granted else "denied"
    return _answered(state, p.item_id, p.action_hash, p.attempt, (said, p.by, p.reason), at)


def _approval_expired(state: RunState, p: ev.ApprovalExpired, at: float) -> RunState:
    silence = ("expired", "", "nobody answered in time whether it may run")
    return _answered(state, p.item_id, p.action_hash, 0, silence, at)


def _answered(
    state: RunState, item_id: str, action_hash: str, attempt: int, answer: tuple[str, str, str], at: float
) -> RunState:
    """The item is queued again, with the answer. Raises IllegalEvent where this was not the question."""

    def change(item: ItemState) -> ItemState:
        asked = item.approvals[-1] if item.state is ev.ItemStateName.WAITING else None
        if asked is None or asked.action_hash != action_hash or attempt not in (0, asked.attempt):
            raise IllegalEvent(f"nobody is asked about this action of {item_id}")
        said, by, reason = answer
        answered = replace(asked, state=said, by=by, reason=reason)
        queued = replace(item, state=ev.ItemStateName.QUEUED, approvals=(*item.approvals[:-1], answered))
        return _later(queued, at - asked.asked_at)  # what a person took is not the item's time

    return with_item(state, item_id, change)


def _later(item: ItemState, seconds: float) -> ItemState:
    """An item whose clock stood still for so long."""
    return replace(item, started_at=item.started_at + seconds) if item.started_at else item


def _pause(state: RunState, _p: ev.PauseRequested, at: float) -> RunState:
    if state.paused:
        raise IllegalEvent("the run is paused already")
    return replace(state, paused=True, paused_at=at)


def _resume(state: RunState, _p: ev.ResumeRequested, at: float) -> RunState:
    if not state.paused:
        raise IllegalEvent("the run is not paused")
    gap = at - state.paused_at
    running = (ev.ItemStateName.QUEUED, ev.ItemStateName.ACTIVE)
    items = {k: _later(i, gap) if i.state in running else i for k, i in state.items.items()}
    return replace(state, items=items, paused=False, paused_at=0.0, paused_s=state.paused_s + gap)


def _cancel(state: RunState, p: ev.CancelRequested, _at: float) -> RunState:
    return replace(state, cancel=state.cancel or p.reason or "cancelled")


def _ended(state: RunState, p: ev.RunEnded, at: float) -> RunState:
    return replace(state, phase=Phase(p.state), reason=p.reason, ended_at=at)


_HANDLERS: dict[type, Callable[[RunState, Any, float], RunState]] = {
    ev.RunCreated: _created,
    ev.CommandIssued: _issued,
    ev.CommandFinished: _finished,
    ev.CommandExpired: _expired,
    ev.RunRefused: _refused,
    ev.GoalAssessed: _assessed,
    ev.ItemsQueued: _queued,
    ev.GateFailed: _gate_failed,
    ev.WaveClosed: _wave_closed,
    ev.DeferredProgress: _deferred_progress,
    ev.AttemptStarted: _attempt_started,
    ev.AttemptEnded: _attempt_ended,
    ev.ItemClosed: _item_closed,
    ev.ApprovalAsked: _approval_asked,
    ev.ApprovalAnswered: _approval_answered,
    ev.ApprovalExpired: _approval_expired,
    ev.PauseRequested: _pause,
    ev.ResumeRequested: _resume,
    ev.RunForked: forked,
    ev.EventRefused: lambda state, _p, _at: state,
    ev.CancelRequested: _cancel,
    ev.RunEnded: _ended,
}
