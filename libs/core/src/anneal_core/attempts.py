"""The loop of one item: the next try, its application, its verdict, and what follows from it."""

from anneal_contracts.work import Candidate

from anneal_core import approvals, group, ladder, triage, turns
from anneal_core import events as ev
from anneal_core.budget import item_used_up, model_used_up, out_of_budget
from anneal_core.issue import Payloads, issue
from anneal_core.state import Attempt, ItemState, RunState
from anneal_core.triage import Diagnosis, Response


def next_try(state: RunState, now: float, item: ItemState) -> Payloads:
    """Another attempt, another model turn, or the end of the item."""
    if stop := out_of_budget(state, now):
        return skip(state, item, ev.DecidedBy.RUN, stop)
    if learning := turns.lesson(state, now, item):
        return learning
    if item.attempts and item.attempts[-1].response == Response.ESCALATE:
        return escalate(state, item, ev.DecidedBy.RESPONSE)
    if ended := turns.given_up(state, item):
        return escalate(state, item, *ended)
    if ladder.gaps(item) >= state.limits.max_gaps:
        return escalate(state, item, ev.DecidedBy.GAPS)
    candidate = ladder.next_candidate(state, item)
    if ladder.tries_used(item, candidate if state.engine > 1 else None) >= state.limits.max_attempts:
        return escalate(state, item, ev.DecidedBy.ATTEMPTS)
    if used_up := item_used_up(state, now, item):
        return escalate(state, item, *used_up)
    if candidate and approvals.needed(state, item, candidate):
        return approvals.ask(state, now, item, candidate)
    if candidate:
        return attempt_started(item, candidate, state.groups + 1 if group.worth_opening(state, item.detail.id) else 0)
    if state.model_may != "author":
        return escalate(state, item, ev.DecidedBy.NO_FIX)
    if used_up := model_used_up(state, item):
        return escalate(state, item, *used_up)
    return turns.model_turn(state, now, item)


def attempt_started(item: ItemState, candidate: Candidate, group_no: int = 0) -> Payloads:
    number = len(item.attempts) + 1
    return (ev.AttemptStarted(item_id=item.detail.id, attempt=number, candidate=candidate.hash, group=group_no),)


def escalate(
    state: RunState, item: ItemState, decided_by: ev.DecidedBy, word: str = "", missing_input: str = ""
) -> Payloads:
    """The item goes to a person. word: what ended it, where that is no part of its story."""
    story = ladder.why_stuck(state, item)
    reason = f"{word}; {story}" if word and word not in story else story
    return (_closed(state, item, ev.ItemStateName.ESCALATED, reason, decided_by, missing_input),)


def skip(state: RunState, item: ItemState, decided_by: ev.DecidedBy, reason: str) -> Payloads:
    """The item is left alone."""
    return (_closed(state, item, ev.ItemStateName.SKIPPED, reason, decided_by),)


def abandon(state: RunState, item: ItemState, why: str) -> Payloads:
    """The run fails under an item: a person gets what was begun, and what was not is left alone."""
    begun = bool(item.attempts)
    name = ev.ItemStateName.ESCALATED if begun else ev.ItemStateName.SKIPPED
    return (_closed(state, item, name, f"the run failed: {why}", ev.DecidedBy.RUN),)


def _closed(
    state: RunState,
    item: ItemState,
    name: ev.ItemStateName,
    reason: str,
    decided_by: ev.DecidedBy,
    missing_input: str = "",
) -> ev.ItemClosed:
    closed = ev.ItemClosed(item_id=item.detail.id, state=name, reason=reason)
    if state.engine < 2:  # a log of that time says no more
        return closed
    missing = missing_input or item.detail.missing_input
    return closed.model_copy(update={"decided_by": decided_by, "missing_input": missing})


def continue_item(state: RunState, now: float, item: ItemState) -> Payloads:
    attempt = item.open_attempt
    if attempt is None:
        last = item.attempts[-1]
        return close_kept(item, last) if last.ending is ev.Ending.KEPT else next_try(state, now, item)
    item_id, number = item.detail.id, attempt.number
    if attempt.applied is None:
        return issue(state, now, "apply", item_id=item_id, attempt=number)
    if triage.may_apply_again(state, attempt, now):
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
