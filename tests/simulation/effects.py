"""The simulated worker at an action: a session, the ledger's leave, the markers, the script, the ledger.

The steps and their order are those of services/worker/actions and of the wrapper on the target.
"""

from typing import TYPE_CHECKING

from anneal_contracts.work import Applied, Apply, Result

from tests.simulation.bus import Message
from tests.simulation.checkpoint import CallError
from tests.simulation.kernel import Process, Steps
from tests.simulation.target import Busy, Marker, Permit, Running, Unreachable

if TYPE_CHECKING:
    from tests.simulation.world import World

_CONNECT_S = 0.1
_RETRY_S = 1.0
# This much before its deadline an undo gives up waiting for a target that is away.
_LAST_WORDS_S = 8.0
# How long a script waits for another one that is still at work on the target.
_BUSY_S = 30.0


def apply(world: "World", process: Process, message: Message) -> Steps[Result]:
    """Applies an action unless its markers say that it ran. Raises CallError, Fenced, Busy, Unreachable."""
    command = message.command
    assert isinstance(command, Apply)
    cid = command.command_id
    try:
        permit, begun_before = yield from _admitted(world, process, message, command)
        found = yield from _carried_out(world, process, message, command, permit, begun_before=begun_before)
        while isinstance(found, Running) and found in world.target.running:
            yield from world.kernel.wait(found.ended, max(0.01, found.ends_at - world.kernel.now))
        marker = found.marker if isinstance(found, Running) else found
        yield from world.gap(process, "worker", f"worker, after {message.label}")
        world.target.connect()
    except Unreachable as e:
        if command.undoes or not world.scenario.can_snapshot:
            raise
        return Applied(command_id=cid, state="unreachable", detail=str(e))
    if marker.timer == "reverted" and marker.exit_code == 0:
        yield from world.checkpoint.finish_effect(command.effect_key, "reverted")
        return Applied(command_id=cid, state="unreachable", detail="the timer on the target was faster")
    if marker.timer == "reverted" or not marker.finished:
        if command.undoes:
            yield from world.checkpoint.finish_effect(command.effect_key, "unknown")
        return Applied(command_id=cid, state="interrupted", detail="started, end unknown")
    yield from world.checkpoint.finish_effect(command.effect_key, "applied", marker.exit_code)
    yield from world.gap(process, "worker", f"worker, with {message.label} on record")
    return Applied(command_id=cid, state="applied", exit_code=marker.exit_code, timed_out=marker.timed_out)


def _admitted(world: "World", process: Process, message: Message, command: Apply) -> Steps[tuple[Permit, bool]]:
    """A session, and the ledger's leave, in this order: whatever happens to the target after the look voids it."""
    yield _CONNECT_S
    while True:
        permit = _permit(command, world.target.boot)
        try:
            world.target.connect()
            break
        except Unreachable:
            # What cut the target off is taken back there by a timer: an undo waits for that.
            if not command.undoes or command.deadline - world.kernel.now < _LAST_WORDS_S + _RETRY_S:
                yield from world.checkpoint.begin_effect(permit)
                raise
            yield _RETRY_S
    yield from world.gap(process, "worker", f"worker, before the intent of {message.label}")
    begun_before = yield from world.checkpoint.begin_effect(permit)
    yield from world.gap(process, "worker", f"worker, with the intent of {message.label}")
    return permit, begun_before


def _permit(command: Apply, boot: int) -> Permit:
    return Permit(
        key=command.effect_key,
        seq=command.command_seq,
        token=command.fencing_token,
        boot=boot,
        until=command.deadline,
        command_id=command.command_id,
        item_id=command.item_id,
        attempt=command.attempt,
        action_hash=command.action.hash,
        undoes=command.undoes,
        undo=(command.action.undo or "") if command.guard_s else "",
        guard_s=command.guard_s,
    )


def _carried_out(
    world: "World", process: Process, message: Message, command: Apply, permit: Permit, *, begun_before: bool
) -> Steps[Running | Marker]:
    """The script under way, or what an earlier worker left of it."""
    target = world.target
    if begun_before:
        yield 0.01
        target.connect()
        if (found := target.there(permit.key)) is not None:
            return found
    if world.chance.fault("target", f"the disk is full for {message.label}", 0.006):
        raise CallError("failed_precondition", "cannot store the script: disk full?")
    patience = world.kernel.now + _BUSY_S
    while world.rules.one_script_at_a_time and any(r.permit.key != permit.key for r in target.running):
        if world.kernel.now >= patience:
            raise Busy("another script is at work")
        yield 1.0
    yield from world.gap(process, "worker", f"worker, at the start of {message.label}")
    before = target.markers.get(permit.undoes)
    if before is not None and before.timer == "reverted":
        return before
    started = target.start(permit, world.scenario.scripts[command.action.content], command.action.timeout_s)
    world.tell(process.name, f"has {command.action.content!r} at work or done")
    yield from world.gap(process, "worker", f"worker, while {message.label} runs")
    return started
