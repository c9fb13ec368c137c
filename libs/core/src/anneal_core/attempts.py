"""The loop of one item: the next try, its application, its verdict, and what follows from it."""

from anneal_contracts.work import Candidate

from anneal_core import events as ev
from anneal_core import group, ladder, triage
from anneal_core.budget import out_of_budget
from anneal_core.issue import Payloads, issue
from anneal_core.state import Attempt, ItemState, RunState
from anneal_core.triage import Diagnosis, Response


def next_try(state: RunState, now: float, item: ItemState) -> Payloads:
    """Another attempt, another model turn, or the end of the item."""
    if stop := out_of_budget(state, now):
        return (ev.ItemClosed(item_id=item.detail.id, state=ev.ItemStateName.SKIPPED, reason=stop),)
    if item.attempts and item.attempts[-1].response == Response.ESCALATE:
        return escalate(state, item)
    exhausted = ladder.tries_used(item) >= state.limits.max_attempts or ladder.gaps(item) >= state.limits.max_gaps
    if exhausted:
        return escalate(state, item)
    if candidate := ladder.next_candidate(state, item):
        return attempt_started(item, candidate, state.groups + 1 if group.worth_opening(state, item.detail.id) else 0)
    if state.model_may == "author":
        turn = len(item.attempts) + len(item.proposals) + 1
        return issue(state, now, "propose", item_id=item.detail.id, attempt=turn)
    return escalate(state, item)


def attempt_started(item: ItemState, candidate: Candidate, group_no: int = 0) -> Payloads:
    number = len(item.attempts) + 1
    return (ev.AttemptStarted(item_id=item.detail.id, attempt=number, candidate=candidate.hash, group=group_no),)


def escalate(state: RunState, item: ItemState) -> Payloads:
    reason = ladder.why_stuck(state, item)
    return (ev.ItemClosed(item_id=item.detail.id, state=ev.ItemStateName.ESCALATED, reason=reason),)


def continue_item(state: RunState, now: float, item: ItemState) -> Payloads:
    attempt = item.open_attempt
    if attempt is None:
        last = item.attempts[-1]
        return close_kept(item, last) if last.ending is ev.Ending.KEPT else next_try(state, now, item)
    item_id, number = item.detail.id, attempt.number
    if attempt.applied is None:
        return issue(state, now, "apply", item_id=item_id, attempt=number)
    if triage.may_apply_again(state, attempt):
        return _take_back(state, now, item_id, attempt, force=True)
    diagnosis = triage.of_apply(attempt.applied)
    if diagnosis is None and attempt.evaluated is None:
        return issue(state, now, "evaluate", item_id=item_id, attempt=number)
    if diagnosis is None:
        assert attempt.evaluated is not None
        diagnosis = triage.of_evaluation(attempt.applied, attempt.evaluated, state.policy)
    return _settle(state, now, item_id, attempt, diagnosis)


def _settle(state: RunState, now: float, item_id: str, attempt: Attempt, d: Diagnosis) -> Payloads:
    """Keep or take back, and then close the attempt."""
    assert state.access is not None
    if d.response.takes_back:
        if attempt.restored is None:
            return _take_back(state, now, item_id, attempt, force=d.force)
        if state.booted:
            return issue(state, now, "check_health", generation=state.seq)
        ending = ev.Ending.REVERTED if attempt.restored.restored else ev.Ending.UNCHANGED
        return (attempt_ended(state, item_id, attempt, ending, d),)
    if state.access.can_snapshot and attempt.generation == 0:
        return issue(state, now, "snapshot", item_id=item_id, attempt=attempt.number, generation=state.generation + 1)
    return (attempt_ended(state, item_id, attempt, ev.Ending.KEPT, d),)


def close_kept(item: ItemState, attempt: Attempt) -> Payloads:
    """A kept attempt ends its item: completed, or deferred where its mode waits for the end of the queue."""
    held = attempt.evaluated is not None and attempt.evaluated.outcome in triage.HOLDS
    held = held or attempt.response == Response.KEEP  # a mode of the skill's own that is as good as done
    closed = ev.ItemStateName.COMPLETED if held else ev.ItemStateName.DEFERRED
    reason = attempt.detail or f"fixed by {attempt.candidate.title}"
    return (ev.ItemClosed(item_id=item.detail.id, state=closed, reason=reason, rung=attempt.candidate.source),)


def _take_back(state: RunState, now: float, item_id: str, attempt: Attempt, *, force: bool) -> Payloads:
    assert state.access is not None
    if not state.access.can_snapshot:
        return issue(state, now, "undo", item_id=item_id, attempt=attempt.number)
    generation = state.generation
    return issue(state, now, "restore", item_id=item_id, attempt=attempt.number, generation=generation, force=force)


def attempt_ended(state: RunState, item_id: str, attempt: Attempt, ending: ev.Ending, d: Diagnosis) -> ev.AttemptEnded:
    return ev.AttemptEnded(
        item_id=item_id,
        attempt=attempt.number,
        ending=ending,
        mode=d.mode,
        detail=d.detail,
        generation=attempt.generation or max(state.generation, 0),
        response=d.response if state.engine > 1 else "",
    )


def candidate_of(state: RunState, item_id: str) -> Candidate:
    """The rung that the open attempt at an item runs. Raises ValueError where none is under way."""
    attempt = state.items[item_id].open_attempt
    if attempt is None:
        raise ValueError(f"no attempt at {item_id} is under way")
    return attempt.candidate
