"""Orders for snapshots and restores: what is checked and recorded before anything outside the database happens."""

from collections.abc import Mapping
from dataclasses import dataclass

from anneal_contracts.canonical import sha256_hex
from anneal_runtime.errors import AlreadyExists, FailedPrecondition, NotFound

from anneal_checkpoint.checks import check_generation, check_key, check_run_id
from anneal_checkpoint.drivers.base import Driver
from anneal_checkpoint.errors import missing_target
from anneal_checkpoint.leases import check_holder, take_command
from anneal_checkpoint.model import (
    DriverKind,
    Operation,
    OperationKind,
    Scene,
    Snapshot,
    SnapshotState,
    Target,
)
from anneal_checkpoint.store import Tx

Drivers = Mapping[DriverKind, Driver]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Who asks for a snapshot or restore of what."""

    key: str
    target: str
    run_id: str
    token: int
    generation: int
    # Number of the event of the run's log that asks for it.
    command_seq: int = 0
    # Run whose generation is meant; empty: the caller's own.
    from_run: str = ""
    # A snapshot with which the run begins, though it is not 0: a fork's.
    first: bool = False

    @property
    def of_run(self) -> str:
        """The run whose saved states are meant."""
        return self.from_run or self.run_id


def snapshot_name(run_id: str, generation: int) -> str:
    """Name of a generation at its driver: short, and the same for the same run whatever its id looks like."""
    return f"{sha256_hex(run_id.encode())[:12]}-{generation}"


async def look(tx: Tx, order: Order, request_hash: str, drivers: Drivers) -> Scene:
    """Holds the lease row until the transaction's end, and checks what both kinds have in common.

    Where the operation is done already nothing else is checked: its answer stands.
    """
    check_key(order.key)
    check_run_id(order.run_id)
    check_generation(order.generation)
    if order.from_run:
        check_run_id(order.from_run, "from_run")
    # Locked before the records are read: an operation under way ends first.
    lease = await tx.lock_lease(order.target)
    scene = await tx.scene(order.target, order.of_run, order.generation, order.key)
    able_target(scene.target, order.target, drivers)
    if scene.operation is not None and scene.operation.request_hash != request_hash:
        raise AlreadyExists("this key belongs to another request", field="idempotency_key")
    if scene.done is None:
        check_holder(lease, order.run_id, order.token)
        await take_command(tx, lease, order.command_seq)
    return scene


async def intend_restore(tx: Tx, order: Order, scene: Scene, request_hash: str, drivers: Drivers) -> None:
    """Records the intent, unless an earlier try has."""
    kept_state(scene, order, able_target(scene.target, order.target, drivers))
    if scene.operation is None:
        await tx.insert_operation(operation_of(order, OperationKind.RESTORE, request_hash))


async def intend_snapshot(tx: Tx, order: Order, scene: Scene, drivers: Drivers) -> Scene | None:
    """A generation is taken once, and 0 first, or where a fork begins: what may be brought back is never overwritten.

    The scene where the intent is committed already: the generation before announced this one, or an earlier try was cut
    off. Else None, and the intent is in the caller's transaction.
    """
    there = scene.snapshot(order.generation)
    if there is not None and there.state is not SnapshotState.TAKING:
        raise AlreadyExists(f"generation {order.generation} of run {order.run_id} was taken before", field="generation")
    if order.generation > 0 and not order.first:
        kept = (s.generation for s in scene.saved if s.state is SnapshotState.KEPT)
        if min(kept, default=order.generation) >= order.generation:
            raise FailedPrecondition(f"run {order.run_id} has no earlier generation to build on", field="generation")
    target = able_target(scene.target, order.target, drivers)
    if there is not None and there.machine == target.machine:
        return scene
    await tx.save_snapshot(taking(order, target, order.generation))
    return None


def taking(order: Order, target: Target, generation: int) -> Snapshot:
    """The intent to take a generation: what may be half there is known by it, and can be removed."""
    return Snapshot(
        name=snapshot_name(order.run_id, generation),
        target=order.target,
        driver=target.driver,
        machine=target.machine,
        run_id=order.run_id,
        generation=generation,
        state=SnapshotState.TAKING,
    )


def operation_of(order: Order, kind: OperationKind, request_hash: str) -> Operation:
    """The record of an order."""
    return Operation(
        key=order.key,
        kind=kind,
        target=order.target,
        run_id=order.of_run,
        generation=order.generation,
        request_hash=request_hash,
    )


def able_target(target: Target | None, name: str, drivers: Drivers) -> Target:
    """The target, where it is there and its driver can save states. Raises NotFound, FailedPrecondition."""
    if target is None:
        raise missing_target(name)
    if not drivers[target.driver].can_snapshot:
        raise FailedPrecondition(
            f"target {name} (driver {target.driver}) has no snapshots: only fixes with a scripted undo may run on it",
            field="target",
        )
    return target


def kept_state(scene: Scene, order: Order, target: Target) -> Snapshot:
    """The saved state an order names. Raises NotFound where it was never whole or is no longer kept."""
    snapshot = scene.snapshot(order.generation)
    if snapshot is None or snapshot.state is not SnapshotState.KEPT or snapshot.machine != target.machine:
        raise NotFound(
            f"run {order.of_run} has no saved generation {order.generation} of target {order.target}",
            field="generation",
        )
    return snapshot
