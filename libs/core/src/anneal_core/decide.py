"""`decide`: what a run does next, as events to append. Pure: the same state and time give the same answer.

The shell appends what comes back and asks again until nothing comes; then it waits for a result or a deadline.
"""

from collections.abc import Sequence
from dataclasses import replace

from anneal_contracts.canonical import digest
from anneal_contracts.facts import CoreMode
from anneal_contracts.work import Candidate

from anneal_core import events as ev
from anneal_core import group, ladder, triage
from anneal_core.evolve import BACKGROUND, try_key
from anneal_core.ordering import next_item, to_mend, to_plan
from anneal_core.state import Attempt, ItemState, RunState
from anneal_core.triage import Diagnosis, Response

Payloads = tuple[ev.Payload, ...]

# Seconds a command may take before it is given out again; what the skill declares goes before these.
_PATIENCE = {
    "acquire": 20.0,
    "snapshot": 120.0,
    "plan": 120.0,
    "propose": 300.0,
    "restore": 90.0,
    "check_health": 60.0,
    "reflect": 45.0,
    "record": 30.0,
    "release": 30.0,
}
# Beyond an action's own timeout: connecting, markers, and a worker that has to be started again.
_APPLY_SLACK_S = 60.0


def decide(state: RunState, now: float) -> Payloads:
    """The next events; empty: wait, or the run has ended."""
    if state.ended or state.spec is None:
        return ()
    late = tuple(ev.CommandExpired(command_id=p.command_id) for p in state.pending.values() if p.deadline <= now)
    if late:
        return late
    if any(p.kind not in BACKGROUND for p in state.pending.values()):
        return ()
    if state.failure:
        return _close_down(state, now, failed=True)
    return _start(state, now) or _work(state, now) or _finish(state, now)


def _issue(
    state: RunState,
    now: float,
    kind: str,
    *,
    item_id: str = "",
    attempt: int = 0,
    generation: int = 0,
    force: bool = False,
    group_no: int = 0,
) -> Payloads:
    try_no = state.tries.get(try_key(kind, item_id, attempt, generation), 0) + 1
    # A restore that prepares the same attempt anew is another command than the one that ends it: seq tells them apart.
    # A generation is taken once: given out again, it is the same command, and what is under way goes on.
    seq = 0 if kind == "snapshot" else state.seq
    command_id = digest(state.run_id, kind, item_id, attempt, generation, seq)[:32]
    deadline = now + _patience(state, kind, item_id)
    return (
        ev.CommandIssued(
            command_id=command_id,
            kind=kind,
            item_id=item_id,
            attempt=attempt,
            generation=generation,
            force=force,
            group=group_no,
            deadline=round(deadline, 3),
            try_no=try_no,
        ),
    )


def _patience(state: RunState, kind: str, item_id: str) -> float:
    if kind in _PATIENCE:
        return _PATIENCE[kind]
    assert state.policy is not None
    if kind == "discover":
        return state.policy.discover_timeout_s
    if kind == "verify":
        return state.policy.verify_timeout_s
    if kind == "evaluate":
        return state.policy.evaluate_timeout_s
    if kind == "evaluate_group":
        return state.policy.evaluate_timeout_s * len(state.group)
    attempt = state.items[item_id].open_attempt
    return (attempt.candidate.timeout_s if attempt else 0.0) + _APPLY_SLACK_S


def _start(state: RunState, now: float) -> Payloads:
    """Everything before the first item: lease, first generation, discovery, plan, queue."""
    assert state.spec is not None
    if state.access is None:
        return _issue(state, now, "acquire")
    if state.cancel and not state.queued:
        return _close_down(state, now)
    if state.generation < 0 and state.access.can_snapshot and not state.spec.dry_run:
        return _issue(state, now, "snapshot", generation=0)
    if state.before is None:
        return _issue(state, now, "discover")
    if not state.planned:
        return _issue(state, now, "plan", generation=state.round)
    if not state.queued:
        chosen = [d.id for d in to_plan(state)]
        exclusions = state.spec.exclusions if state.round == 0 else {}
        skipped = {i: f"excluded: {exclusions[i]}" for i in chosen if i in exclusions}
        return (ev.ItemsQueued(order=tuple(i for i in chosen if i not in skipped), skipped=skipped),)
    if state.spec.dry_run:
        return _close_down(state, now)
    return ()


def _work(state: RunState, now: float) -> Payloads:
    """The item loop; empty when the queue has drained."""
    if state.group:
        return _continue_group(state, now)
    if state.active:
        return _continue_item(state, now, state.items[state.active])
    if reflect := _reflection(state, now):
        return reflect
    item_id = next_item(state)
    if not item_id:
        return ()
    item = state.items[item_id]
    if stop := _out_of_budget(state, now):
        return (ev.ItemClosed(item_id=item_id, state=ev.ItemStateName.SKIPPED, reason=stop),)
    if item.detail.missing_input:
        return _escalate(state, item)
    return _next_try(state, now, item)


def _out_of_budget(state: RunState, now: float) -> str:
    if state.cancel:
        return f"cancelled: {state.cancel}"
    if now - state.created_at >= state.limits.time_budget_s:
        return f"budget_exhausted: the time budget of {state.limits.time_budget_s:g} s is used up"
    if state.steps + 3 > state.limits.max_steps:  # an attempt and the final scan must still fit
        return f"budget_exhausted: the cap of {state.limits.max_steps} steps is reached"
    return ""


def _next_try(state: RunState, now: float, item: ItemState) -> Payloads:
    """Another attempt, another model turn, or the end of the item."""
    if stop := _out_of_budget(state, now):
        return (ev.ItemClosed(item_id=item.detail.id, state=ev.ItemStateName.SKIPPED, reason=stop),)
    exhausted = ladder.tries_used(item) >= state.limits.max_attempts or ladder.gaps(item) >= state.limits.max_gaps
    if exhausted:
        return _escalate(state, item)
    if candidate := ladder.next_candidate(state, item):
        return _attempt_started(item, candidate, state.groups + 1 if group.worth_opening(state, item.detail.id) else 0)
    if state.model_may == "author":
        turn = len(item.attempts) + len(item.proposals) + 1
        return _issue(state, now, "propose", item_id=item.detail.id, attempt=turn)
    return _escalate(state, item)


def _attempt_started(item: ItemState, candidate: Candidate, group_no: int = 0) -> Payloads:
    number = len(item.attempts) + 1
    return (ev.AttemptStarted(item_id=item.detail.id, attempt=number, candidate=candidate.hash, group=group_no),)


def _continue_group(state: RunState, now: float) -> Payloads:
    """Applies the members one after the other, then judges, keeps or takes back all of them at once."""
    last = state.items[state.group[-1]]
    attempts = [a for i in state.group if (a := state.items[i].open_attempt) is not None]
    if attempts[-1].applied is None:
        return _issue(state, now, "apply", item_id=last.detail.id, attempt=attempts[-1].number)
    if why := group.objection(state):
        return _dissolve(state, now, attempts, why)
    if attempts[-1].evaluated is None:
        member = "" if _out_of_budget(state, now) else group.next_member(state)
        candidate = group.fits(state, state.items[member]) if member else None
        if candidate is not None:
            return _attempt_started(state.items[member], candidate, state.groups)
        return _issue(state, now, "evaluate_group", generation=state.generation + 1, group_no=state.groups)
    if attempts[-1].generation == 0:
        return _issue(state, now, "snapshot", generation=state.generation + 1, group_no=state.groups)
    closed: list[ev.Payload] = []
    for item_id, attempt in zip(state.group, attempts, strict=True):
        assert attempt.applied is not None and attempt.evaluated is not None
        diagnosis = triage.of_evaluation(attempt.applied, attempt.evaluated, state.policy)
        ended = _attempt_ended(state, item_id, attempt, ev.Ending.KEPT, diagnosis)
        closed += [ended, *_close_kept(state.items[item_id], replace(attempt, detail=diagnosis.detail))]
    return tuple(closed)


def _dissolve(state: RunState, now: float, attempts: Sequence[Attempt], why: str) -> Payloads:
    """The machine goes back to before the group, and its items into the queue, each to be tried by itself."""
    restored = attempts[-1].restored
    if restored is None:
        return _issue(state, now, "restore", generation=state.generation, force=True, group_no=state.groups)
    if state.booted:
        return _issue(state, now, "check_health", generation=state.seq)
    diagnosis = Diagnosis(mode=CoreMode.GROUP_REVERTED, response=Response.REVERT, detail=why)
    ending = ev.Ending.REVERTED if restored.restored else ev.Ending.UNCHANGED
    pairs = zip(state.group, attempts, strict=True)
    return tuple(_attempt_ended(state, item_id, attempt, ending, diagnosis) for item_id, attempt in pairs)


def _escalate(state: RunState, item: ItemState) -> Payloads:
    reason = ladder.why_stuck(state, item)
    return (ev.ItemClosed(item_id=item.detail.id, state=ev.ItemStateName.ESCALATED, reason=reason),)


def _continue_item(state: RunState, now: float, item: ItemState) -> Payloads:
    attempt = item.open_attempt
    if attempt is None:
        last = item.attempts[-1]
        return _close_kept(item, last) if last.ending is ev.Ending.KEPT else _next_try(state, now, item)
    item_id, number = item.detail.id, attempt.number
    if attempt.applied is None:
        return _issue(state, now, "apply", item_id=item_id, attempt=number)
    if triage.may_apply_again(state, attempt):
        return _take_back(state, now, item_id, attempt, force=True)
    diagnosis = triage.of_apply(attempt.applied)
    if diagnosis is None and attempt.evaluated is None:
        return _issue(state, now, "evaluate", item_id=item_id, attempt=number)
    if diagnosis is None:
        assert attempt.evaluated is not None
        diagnosis = triage.of_evaluation(attempt.applied, attempt.evaluated, state.policy)
    return _settle(state, now, item_id, attempt, diagnosis)


def _settle(state: RunState, now: float, item_id: str, attempt: Attempt, d: Diagnosis) -> Payloads:
    """Keep or take back, and then close the attempt."""
    assert state.access is not None
    if d.response is Response.REVERT:
        if attempt.restored is None:
            return _take_back(state, now, item_id, attempt, force=d.force)
        if state.booted:
            return _issue(state, now, "check_health", generation=state.seq)
        ending = ev.Ending.REVERTED if attempt.restored.restored else ev.Ending.UNCHANGED
        return (_attempt_ended(state, item_id, attempt, ending, d),)
    if state.access.can_snapshot and attempt.generation == 0:
        return _issue(state, now, "snapshot", item_id=item_id, attempt=attempt.number, generation=state.generation + 1)
    return (_attempt_ended(state, item_id, attempt, ev.Ending.KEPT, d),)


def _close_kept(item: ItemState, attempt: Attempt) -> Payloads:
    """A kept attempt ends its item: completed, or deferred where its mode waits for the end of the queue."""
    held = attempt.evaluated is not None and attempt.evaluated.outcome in triage.HOLDS
    closed = ev.ItemStateName.COMPLETED if held else ev.ItemStateName.DEFERRED
    reason = attempt.detail or f"fixed by {attempt.candidate.title}"
    return (ev.ItemClosed(item_id=item.detail.id, state=closed, reason=reason, rung=attempt.candidate.source),)


def _take_back(state: RunState, now: float, item_id: str, attempt: Attempt, *, force: bool) -> Payloads:
    assert state.access is not None
    if not state.access.can_snapshot:
        return _issue(state, now, "undo", item_id=item_id, attempt=attempt.number)
    generation = state.generation
    return _issue(state, now, "restore", item_id=item_id, attempt=attempt.number, generation=generation, force=force)


def _attempt_ended(state: RunState, item_id: str, attempt: Attempt, ending: ev.Ending, d: Diagnosis) -> ev.AttemptEnded:
    return ev.AttemptEnded(
        item_id=item_id,
        attempt=attempt.number,
        ending=ending,
        mode=d.mode,
        detail=d.detail,
        generation=attempt.generation or max(state.generation, 0),
    )


def _reflection(state: RunState, now: float) -> Payloads:
    """A bounded number of escalated items are put in plain words, beside the main line."""
    if state.cancel or state.reflections >= state.limits.max_reflections or state.pending:
        return ()
    for item_id in state.order:
        item = state.items[item_id]
        waiting = item.state is ev.ItemStateName.ESCALATED and item.attempts and item.reflection is None
        if waiting and state.tries.get(try_key("reflect", item_id, 0, 0), 0) == 0:
            return _issue(state, now, "reflect", item_id=item_id)
    return ()


def _finish(state: RunState, now: float) -> Payloads:
    """The queue has drained: restart, re-scan, mend what fails by our doing, remember, let go."""
    if not state.verified:
        return _settle_target(state, now) or _issue(state, now, "verify", generation=state.round)
    if to_mend(state) and state.round < state.limits.repair_rounds and not state.cancel:
        return _issue(state, now, "plan", generation=state.round + 1)
    return _close_down(state, now)


def _settle_target(state: RunState, now: float) -> Payloads:
    """The last word is on a machine that was restarted: what lasts until the next boot only is no fix."""
    assert state.access is not None
    if state.access.can_snapshot and state.generation > 0 and not state.settled:
        return _issue(state, now, "restore", generation=state.generation, force=True)
    return _issue(state, now, "check_health", generation=state.seq) if state.booted else ()


def _close_down(state: RunState, now: float, *, failed: bool = False) -> Payloads:
    assert state.spec is not None
    if state.pending and not failed:  # a reflection is still being written
        return ()
    worth = state.items and not state.spec.dry_run and state.fingerprint
    if worth and not state.recorded:
        return _issue(state, now, "record")
    if state.access is not None and not state.released:
        return _issue(state, now, "release")
    if failed:
        return (ev.RunEnded(state="failed", reason=state.failure),)
    if state.cancel:
        return (ev.RunEnded(state="cancelled", reason=state.cancel),)
    return (ev.RunEnded(state="finished", reason="dry run: nothing was touched" if state.spec.dry_run else ""),)


def candidate_of(state: RunState, item_id: str) -> Candidate:
    """The rung that the open attempt at an item runs. Raises ValueError where none is under way."""
    attempt = state.items[item_id].open_attempt
    if attempt is None:
        raise ValueError(f"no attempt at {item_id} is under way")
    return attempt.candidate
