"""The loop of a group: its members applied one after the other, then judged, kept or taken back all at once."""

from collections.abc import Sequence

from anneal_contracts.facts import CoreMode

from anneal_core import events as ev
from anneal_core import group, triage
from anneal_core.attempts import attempt_ended, attempt_started, close_kept
from anneal_core.budget import out_of_budget
from anneal_core.issue import Payloads, issue
from anneal_core.records import replace
from anneal_core.state import Attempt, RunState
from anneal_core.triage import Diagnosis, Response


def continue_group(state: RunState, now: float) -> Payloads:
    """Applies the members one after the other, then judges, keeps or takes back all of them at once."""
    last = state.items[state.group[-1]]
    attempts = [a for i in state.group if (a := state.items[i].open_attempt) is not None]
    if attempts[-1].applied is None:
        return issue(state, now, "apply", item_id=last.detail.id, attempt=attempts[-1].number)
    if why := group.objection(state):
        return _dissolve(state, now, attempts, why)
    if attempts[-1].evaluated is None:
        member = "" if out_of_budget(state, now) else group.next_member(state)
        candidate = group.fits(state, state.items[member]) if member else None
        if candidate is not None:
            return attempt_started(state.items[member], candidate, state.groups)
        return issue(state, now, "evaluate_group", generation=state.generation + 1, group_no=state.groups)
    if attempts[-1].generation == 0:
        return issue(state, now, "snapshot", generation=state.generation + 1, group_no=state.groups)
    closed: list[ev.Payload] = []
    for item_id, attempt in zip(state.group, attempts, strict=True):
        assert attempt.applied is not None and attempt.evaluated is not None
        diagnosis = triage.of_evaluation(attempt.applied, attempt.evaluated, state.policy)
        ended = attempt_ended(state, item_id, attempt, ev.Ending.KEPT, diagnosis)
        closed += [ended, *close_kept(state.items[item_id], replace(attempt, detail=diagnosis.detail))]
    return tuple(closed)


def _dissolve(state: RunState, now: float, attempts: Sequence[Attempt], why: str) -> Payloads:
    """The machine goes back to before the group, and its items into the queue, each to be tried by itself."""
    restored = attempts[-1].restored
    if restored is None:
        return issue(state, now, "restore", generation=state.generation, force=True, group_no=state.groups)
    if state.booted:
        return issue(state, now, "check_health", generation=state.seq)
    diagnosis = Diagnosis(mode=CoreMode.GROUP_REVERTED, response=Response.REVERT, detail=why)
    ending = ev.Ending.REVERTED if restored.restored else ev.Ending.UNCHANGED
    pairs = zip(state.group, attempts, strict=True)
    return tuple(attempt_ended(state, item_id, attempt, ending, diagnosis) for item_id, attempt in pairs)
