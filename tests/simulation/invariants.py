"""What must hold of a run once it is over, whatever happened in it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from anneal_core import chain
from anneal_core.events import ItemStateName
from anneal_core.state import Phase, RunState

from tests.simulation.replica import fold
from tests.simulation.witness import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

_OPEN = (ItemStateName.QUEUED, ItemStateName.ACTIVE)


def check(world: "World") -> None:
    """Raises Violation."""
    state = world.witness.state
    if not state.ended:
        raise Violation("every wait has an end", f"nothing is planned any more in phase {state.phase}")
    _chain(world, state)
    _items(state)
    _time(world, state)
    _target(world, state)


def _chain(world: "World", state: RunState) -> None:
    found = chain.verify(world.store.log)
    if not found.ok:
        raise Violation("the chain of hashes holds", found.reason)
    if found.head != state.head:
        raise Violation("the chain of hashes holds", "its end is not the state's")
    if fold(world.store.log) != state:
        raise Violation("the log folds to the live state", "at its end")


def _items(state: RunState) -> None:
    assert state.spec is not None
    if state.spec.dry_run:
        return
    for item_id, item in state.items.items():
        if item.state in _OPEN or not item.reason:
            raise Violation("every item ends with a reason", f"{item_id} is {item.state}: {item.reason!r}")
        if state.phase is not Phase.FAILED and item.open_attempt is not None:
            raise Violation("every attempt ends", f"{item_id}/{item.open_attempt.number}")


def _time(world: "World", state: RunState) -> None:
    """Once the budget is used up, what is under way ends and the run closes; so long may each command take."""
    limits = state.limits
    longest = {
        "acquire": 20.0, "snapshot": 120.0, "discover": 60.0, "plan": 120.0, "apply": 90.0, "evaluate": 20.0,
        "restore": 90.0, "check_health": 60.0, "verify": 60.0, "record": 30.0, "release": 30.0,
    }  # fmt: skip
    after_budget = sum(longest[k] for k in longest if k not in ("acquire", "discover"))
    rounds = 1 + limits.repair_rounds
    bound = limits.time_budget_s + limits.command_tries * 3 * rounds * after_budget + world.kernel.lost_s + 600.0
    took = state.ended_at - state.created_at
    if took > bound:
        raise Violation("every wait has an end", f"it took {took:.0f} s, {bound:.0f} s is the bound")


def _target(world: "World", state: RunState) -> None:
    target = world.target
    if target.running:
        raise Violation("an attempt ends after its effect", "a script runs after the run")
    assert state.spec is not None
    if state.spec.dry_run and (target.files or world.witness.executions):
        raise Violation("a dry run touches nothing", str(target.files))
    if state.phase is Phase.FAILED or not world.scenario.can_snapshot or not world.witness.kept:
        return
    kept = world.witness.kept[max(world.witness.kept)]
    if target.files != kept:
        raise Violation("a reverted target equals its snapshot", f"at the end {target.files}, kept {kept}")


def visited(world: "World") -> Iterator[str]:
    """What this run has been through, as words to count."""
    state = world.witness.state
    yield f"run {state.phase}"
    for item in state.items.values():
        yield f"item {item.state}"
        for attempt in item.attempts:
            if attempt.ending is not None:
                yield f"attempt {attempt.ending}"
                yield f"mode {attempt.mode or 'none'}"
    for name, count in (("takeover", world.store.token - 1), ("group", state.groups), ("further round", state.round)):
        for _ in range(count):
            yield f"also {name}"
    for fault, family in world.chance.fired.items():
        where, _, what = fault.rpartition(": ")
        if what in ("dies", "stands still"):
            yield f"{what} {where.partition(',')[0]}"
        yield f"fault {family}"
    for event in world.store.log:
        if event.type == "command_issued":
            yield f"command {event.payload['kind']}"
        else:
            yield f"event {event.type}"
