"""The end of a run: words on what was escalated, the restart, the re-scan, the mending, and letting go."""

from anneal_core import events as ev
from anneal_core.budget import TURN_CALLS, out_of_budget, steps_left_for, time_is_up
from anneal_core.folding import try_key
from anneal_core.issue import Payloads, issue
from anneal_core.ordering import inapplicable_before, to_mend
from anneal_core.state import Phase, RunState


def reflection(state: RunState, now: float) -> Payloads:
    """A bounded number of escalated items are put in plain words, beside the main line."""
    if state.cancel or state.reflections >= state.limits.max_reflections or state.pending:
        return ()
    if state.engine > 1 and (time_is_up(state, now) or not steps_left_for(state, TURN_CALLS)):
        return ()
    for item_id in state.order:
        item = state.items[item_id]
        waiting = item.state is ev.ItemStateName.ESCALATED and item.attempts and item.reflection is None
        if waiting and state.tries.get(try_key("reflect", item_id, 0, 0), 0) == 0:
            return issue(state, now, "reflect", item_id=item_id)
    return ()


def finish(state: RunState, now: float) -> Payloads:
    """The queue has drained: restart, re-scan, mend what fails by our doing, remember, let go."""
    if not state.verified:
        # A scan that is given out again has all of this behind it.
        begun = state.phase is Phase.VERIFYING
        before = () if begun else _look_again(state, now) or _settle_target(state, now) or _resolve(state, now)
        return before or issue(state, now, "verify", generation=state.round)
    wanted = to_mend(state) and state.repairs < state.limits.repair_rounds and not state.cancel
    if wanted and not (state.engine > 1 and out_of_budget(state, now)):
        return issue(state, now, "plan", generation=state.round + 1)
    return close_down(state, now)


def _look_again(state: RunState, now: float) -> Payloads:
    """What applies by now through what was installed is worked before the re-scan, which would only find it late."""
    if state.engine < 2 or state.generation < 1 or out_of_budget(state, now):
        return ()
    if not state.looked_again:
        ids = inapplicable_before(state)
        return issue(state, now, "look_again", generation=state.round) if ids else ()
    fresh = any(i not in state.items for i in state.newly)
    return issue(state, now, "plan", generation=state.round + 1) if fresh and to_mend(state) else ()


def _resolve(state: RunState, now: float) -> Payloads:
    """The last word on deferred items, mode by mode, on a machine that was restarted where the driver can."""
    for mode in deferred_modes(state):
        if mode not in state.resolved and steps_left_for(state, 1):
            return issue(state, now, "resolve_deferred", mode=mode, generation=state.round)
    return ()


def deferred_modes(state: RunState) -> tuple[str, ...]:
    """The modes in which items wait for the end, in the order in which they came up; none by the old rules."""
    waiting = [i for i in state.items.values() if i.state is ev.ItemStateName.DEFERRED]
    return tuple(dict.fromkeys(i.attempts[-1].mode for i in waiting)) if state.engine > 1 else ()


def settled_in(state: RunState, mode: str) -> tuple[str, ...]:
    """The items that were deferred in this mode and have had their last word."""
    done = (ev.ItemStateName.COMPLETED, ev.ItemStateName.ESCALATED)
    return tuple(
        item_id
        for item_id, item in state.items.items()
        if item.state in done and item.attempts and item.attempts[-1].mode == mode
    )


def _settle_target(state: RunState, now: float) -> Payloads:
    """The last word is on a machine that was restarted: what lasts until the next boot only is no fix."""
    assert state.access is not None
    if state.access.can_snapshot and state.generation > 0 and not state.settled:
        return issue(state, now, "restore", generation=state.generation, force=True)
    return issue(state, now, "check_health", generation=state.seq) if state.booted else ()


def close_down(state: RunState, now: float, *, failed: bool = False) -> Payloads:
    assert state.spec is not None
    if state.pending and not failed:  # a reflection is still being written
        return ()
    worth = state.items and not state.spec.dry_run and state.fingerprint
    if worth and not state.recorded:
        return issue(state, now, "record")
    if state.access is not None and not state.released:
        return issue(state, now, "release")
    if failed:
        return (ev.RunEnded(state="failed", reason=state.failure),)
    if state.cancel:
        return (ev.RunEnded(state="cancelled", reason=state.cancel),)
    return (ev.RunEnded(state="finished", reason="dry run: nothing was touched" if state.spec.dry_run else ""),)
