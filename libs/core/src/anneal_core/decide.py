"""`decide`: what a run does next, as events to append. Pure: the same state and time give the same answer.

The shell appends what comes back and asks again until nothing comes; then it waits for a result or a deadline.
"""

from anneal_core import events as ev
from anneal_core import turns
from anneal_core.attempts import continue_item, escalate, next_try, skip
from anneal_core.budget import out_of_budget
from anneal_core.evolve import BACKGROUND
from anneal_core.finish import close_down, finish, reflection
from anneal_core.gate import continue_wave
from anneal_core.grouping import continue_group
from anneal_core.issue import Payloads
from anneal_core.opening import start
from anneal_core.ordering import next_item, unmet
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
        return close_down(state, now, failed=True)
    return start(state, now) or _work(state, now) or finish(state, now)


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
