"""`decide`: what a run does next, as events to append. Pure: the same state and time give the same answer.

The shell appends what comes back and asks again until nothing comes; then it waits for a result or a deadline.
"""

from anneal_core import approvals, turns
from anneal_core import events as ev
from anneal_core.attempts import abandon, continue_item, escalate, next_try, skip
from anneal_core.budget import BACKGROUND, out_of_budget
from anneal_core.finish import close_down, finish, reflection
from anneal_core.gate import continue_wave
from anneal_core.grouping import continue_group
from anneal_core.issue import Payloads
from anneal_core.opening import start
from anneal_core.ordering import UNSETTLED, next_item, unmet
from anneal_core.state import RunState


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
        return _abandoned(state) or close_down(state, now, failed=True)
    if unanswered := approvals.expired(state, now):
        return unanswered
    if state.paused and not state.cancel and not _mid_attempt(state):
        return ()
    going_on = start(state, now) or _work(state, now)
    if going_on or approvals.open_questions(state):  # a person is asked: nothing else is left to do
        return going_on
    return finish(state, now)


def _abandoned(state: RunState) -> Payloads:
    """What a run that fails leaves behind: every item has an end and a reason all the same."""
    if state.engine < 2 or state.spec is None or state.spec.dry_run:
        return ()
    left = (state.items[i] for i in state.order if state.items[i].state in UNSETTLED)
    return tuple(closed for item in left for closed in abandon(state, item, state.failure))


def _mid_attempt(state: RunState) -> bool:
    """A change was begun and not judged yet: it comes to its end even in a paused run."""
    last = state.items[state.active].attempts[-1:] if state.active else ()
    return bool(state.group) or any(a.ending is None or a.ending is ev.Ending.KEPT for a in last)


def _work(state: RunState, now: float) -> Payloads:
    """The item loop; empty when the queue has drained."""
    if state.group:
        return continue_group(state, now)
    if state.active:
        return continue_item(state, now, state.items[state.active])
    if reflect := reflection(state, now):
        return reflect
    if picking := turns.choice(state, now):
        return picking
    if stop := out_of_budget(state, now):
        for item_id in approvals.open_questions(state):
            return skip(state, state.items[item_id], ev.DecidedBy.RUN, stop)
    item_id = state.chosen or next_item(state)
    if not item_id:
        return continue_wave(state, now)
    item = state.items[item_id]
    if stop := out_of_budget(state, now):
        return skip(state, item, ev.DecidedBy.RUN, stop)
    if stop := unmet(state, item_id):
        return skip(state, item, ev.DecidedBy.DEPENDENCY, stop)
    if item.detail.missing_input:
        return escalate(state, item, ev.DecidedBy.MISSING_INPUT)
    return next_try(state, now, item)
