"""The opening of a run: lease, first generation, discovery, plan, queue."""

from anneal_core import events as ev
from anneal_core import goal, graph
from anneal_core.finish import close_down
from anneal_core.fork import go_back
from anneal_core.issue import Payloads, issue
from anneal_core.ordering import in_order, to_plan
from anneal_core.state import RunState


def start(state: RunState, now: float) -> Payloads:
    """Everything before the first item: lease, the way back of a fork, first generation, discovery, plan, queue."""
    assert state.spec is not None
    if state.access is None:
        return issue(state, now, "acquire")
    if going_back := go_back(state, now):
        return going_back
    if state.cancel and not state.queued:
        return close_down(state, now)
    if state.generation < 0 and state.access.can_snapshot and not state.spec.dry_run:
        return issue(state, now, "snapshot", generation=0)
    if state.before is None:
        return issue(state, now, "discover")
    if not state.planned:
        return issue(state, now, "plan", generation=state.round)
    if not state.queued:
        return _queue(state)
    if state.spec.dry_run:
        return close_down(state, now)
    return ()


def _queue(state: RunState) -> Payloads:
    """The items of the round: refused where they cannot be ordered, assessed the first time, then queued in waves."""
    assert state.spec is not None
    details = {d.id: d for d in to_plan(state)}
    exclusions = state.spec.exclusions if state.round == 0 else {}
    skipped = {i: f"excluded: {exclusions[i]}" for i in details if i in exclusions}
    chosen = tuple(i for i in details if i not in skipped)
    if state.engine < 2:
        return (ev.ItemsQueued(order=chosen, skipped=skipped),)
    known = frozenset(state.outcomes_before) | frozenset(state.found)
    if problem := graph.problem(details, known):
        return (ev.RunRefused(reason=problem),)
    order = in_order(state, chosen)
    waves = graph.waves(order, details)
    if not state.goal:
        return (goal.assess(state, waves),)
    return (ev.ItemsQueued(order=order, skipped=skipped, waves=waves),)
