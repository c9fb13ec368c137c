"""The supervisor's own calls to checkpoint and memory, as services/supervisor/dispatch makes them."""

from typing import TYPE_CHECKING

from anneal_contracts.facts import TargetAccess
from anneal_contracts.work import (
    Acquired,
    Failed,
    Recorded,
    Released,
    Restored,
    Result,
    Snapshotted,
)
from anneal_core.state import Pending, RunState

from tests.simulation.checkpoint import CallError
from tests.simulation.kernel import Steps

if TYPE_CHECKING:
    from tests.simulation.world import World

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 3.0, 5.0)


def direct(world: "World", state: RunState, pending: Pending) -> Steps[Result]:
    """Carries a command out; an error becomes a Failed result."""
    error = CallError("internal", "never tried")
    for wait in (*_BACKOFF_S, 0.0):
        try:
            return (yield from CALLS[pending.kind](world, state, pending))
        except CallError as e:
            error = e
            if not e.retryable:
                break
            yield wait
    return Failed(command_id=pending.command_id, reason=error.reason, message=error.message, retryable=error.retryable)


def _acquire(world: "World", state: RunState, pending: Pending) -> Steps[Result]:
    token = yield from world.checkpoint.acquire(world.run_id)
    can = world.scenario.can_snapshot
    access = TargetAccess(
        name="box", driver="nspawn" if can else "ssh", host="h", port=22, user="u", key_path="/k", host_key="k",
        can_snapshot=can,
    )  # fmt: skip
    return Acquired(command_id=pending.command_id, fencing_token=token, access=access)


def _operate(world: "World", state: RunState, pending: Pending) -> Steps[Result]:
    generation = pending.generation
    if pending.kind == "restore" and pending.try_no > 1 and not world.rules.repeated_restore_keeps_its_generation:
        generation = 0
    op = yield from world.checkpoint.operate(
        pending.kind, pending.command_id, generation, pending.force, state.fencing_token, pending.seq
    )
    if pending.kind == "snapshot":
        return Snapshotted(command_id=pending.command_id, generation=op.generation)
    return Restored(command_id=pending.command_id, restored=op.restored)


def _record(world: "World", state: RunState, pending: Pending) -> Steps[Result]:
    yield 0.01
    if world.chance.fault("memory", "memory does not answer to record", 0.1):
        raise CallError("unavailable", "memory does not answer", retryable=True)
    return Recorded(command_id=pending.command_id)


def _release(world: "World", state: RunState, pending: Pending) -> Steps[Result]:
    yield from world.checkpoint.release(world.run_id, state.fencing_token)
    return Released(command_id=pending.command_id)


CALLS = {
    "acquire": _acquire,
    "snapshot": _operate,
    "restore": _operate,
    "record": _record,
    "release": _release,
}
