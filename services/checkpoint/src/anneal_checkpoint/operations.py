"""Snapshots and restores: changes outside the database, made safe to repeat.

1. One transaction checks the lease and records the intent under the idempotency key.
2. The driver does the work while this process holds the target's lease row: nobody can take the target over meanwhile.
3. The end is recorded. A repeated key gets the recorded answer; a key whose process died is carried out again, which is
   safe because both operations make a whole state anew.
A restore that began and has no end leaves a target that nobody may build on: the next snapshot or restore of the target
completes it first, and no effect may begin. Work under way goes on when its caller stops waiting.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anneal_contracts.canonical import digest, sha256_hex
from anneal_runtime.errors import AlreadyExists, FailedPrecondition, NotFound
from anneal_runtime.faults import declare, faultpoint
from anneal_runtime.telemetry import tracer

from anneal_checkpoint.checks import check_generation, check_key, check_run_id
from anneal_checkpoint.drivers.base import Driver
from anneal_checkpoint.errors import missing_target
from anneal_checkpoint.leases import check_holder
from anneal_checkpoint.model import (
    DriverKind,
    Operation,
    OperationKind,
    OperationState,
    Snapshot,
    SnapshotState,
    Target,
)
from anneal_checkpoint.retention import trim_run
from anneal_checkpoint.store import Store, Tx

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

AFTER_INTENT = declare("checkpoint.after_intent")
BEFORE_SNAPSHOT = declare("checkpoint.before_snapshot")
AFTER_SNAPSHOT = declare("checkpoint.after_snapshot")
BEFORE_RESTORE = declare("checkpoint.before_restore")
AFTER_RESTORE = declare("checkpoint.after_restore")

_GLOBS_MAX = 500


@dataclass(frozen=True, kw_only=True)
class Order:
    """Who asks for a snapshot or restore of what."""

    key: str
    target: str
    run_id: str
    token: int
    generation: int


def snapshot_name(run_id: str, generation: int) -> str:
    """Name of a generation at its driver: short, and the same for the same run whatever its id looks like."""
    return f"{sha256_hex(run_id.encode())[:12]}-{generation}"


class Operations:
    """Carries operations out. keep: generations of a run beside 0; max_paths: changed paths in an answer."""

    def __init__(
        self,
        store: Store,
        drivers: Mapping[DriverKind, Driver],
        *,
        keep: int,
        max_paths: int,
        at_once: int,
        wake_sweeper: Callable[[], None],
    ) -> None:
        self._store = store
        self._drivers = drivers
        self._keep = keep
        self._max_paths = max_paths
        self._slots = asyncio.Semaphore(at_once)
        self._wake_sweeper = wake_sweeper
        self._running: dict[str, asyncio.Task[Operation]] = {}

    async def snapshot(self, order: Order) -> Operation:
        """Saves the target as a new generation. Raises StaleToken, FailedPrecondition, AlreadyExists, Unavailable."""
        request_hash = digest("snapshot", order.target, order.run_id, order.generation)
        operation = await self._intend(order, OperationKind.SNAPSHOT, request_hash)
        if operation.state is OperationState.DONE:
            return operation
        taken = await self._carried(operation.key, self._take(order))
        self._wake_sweeper()
        return taken

    async def restore(self, order: Order, *, force: bool, volatile: Sequence[str]) -> Operation:
        """Brings a generation back unless nothing has changed. Raises as snapshot does, and NotFound."""
        if len(volatile) > _GLOBS_MAX:
            raise FailedPrecondition(f"at most {_GLOBS_MAX} volatile_paths", field="volatile_paths")
        request_hash = digest("restore", order.target, order.run_id, order.generation, force, list(volatile))
        operation = await self._intend(order, OperationKind.RESTORE, request_hash)
        if operation.state is OperationState.DONE:
            return operation
        return await self._carried(operation.key, self._bring_back(order, force, volatile))

    async def close(self) -> None:
        """Waits for what is under way."""
        if self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _carried(self, key: str, work: Coroutine[Any, Any, Operation]) -> Operation:
        """Runs work in a task of its own; a second caller with the same key waits for the same task."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(work, name=f"operation {key}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        else:
            work.close()
        return await asyncio.shield(task)

    def _ended(self, key: str, task: asyncio.Task[Operation]) -> None:
        del self._running[key]
        if not task.cancelled() and task.exception() is not None:
            # Its caller may have gone; the record stays unfinished, so that a retry carries it out.
            log.warning("operation failed", extra={"key": key, "error": str(task.exception())})

    # --- intent ------------------------------------------------------------------------------------------------------

    async def _intend(self, order: Order, kind: OperationKind, request_hash: str) -> Operation:
        """Records the intent, or finds the record of an earlier try."""
        check_key(order.key)
        check_run_id(order.run_id)
        check_generation(order.generation)
        async with self._store.transaction() as tx:
            target = await self._snapshot_target(tx, order.target)
            # Locked before the record is read: an operation under way ends first.
            lease = await tx.lock_lease(order.target)
            known = await tx.operation(order.key)
            if known is not None and known.request_hash != request_hash:
                raise AlreadyExists("this key belongs to another request", field="idempotency_key")
            if known is not None and known.state is OperationState.DONE:
                return known
            check_holder(lease, order.run_id, order.token)
            if kind is OperationKind.SNAPSHOT:
                await self._intend_generation(tx, order, target, retry=known is not None)
            else:
                await _kept(tx, order, target)
            if known is None:
                known = Operation(
                    key=order.key,
                    kind=kind,
                    target=order.target,
                    run_id=order.run_id,
                    generation=order.generation,
                    request_hash=request_hash,
                )
                await tx.insert_operation(known)
        await faultpoint(AFTER_INTENT)
        return known

    async def _snapshot_target(self, tx: Tx, name: str) -> Target:
        target = await tx.target(name)
        if target is None:
            raise missing_target(name)
        if not self._drivers[target.driver].can_snapshot:
            raise FailedPrecondition(
                f"target {name} (driver {target.driver}) has no snapshots: "
                "only fixes with a scripted undo may run on it",
                field="target",
            )
        return target

    async def _intend_generation(self, tx: Tx, order: Order, target: Target, *, retry: bool) -> None:
        """A generation is taken once, and 0 first: what may be brought back is never overwritten."""
        there = await tx.snapshot(order.target, order.run_id, order.generation)
        if there is not None and there.state is not SnapshotState.TAKING and not retry:
            raise AlreadyExists(
                f"generation {order.generation} of run {order.run_id} was taken before", field="generation"
            )
        if order.generation > 0:
            first = await tx.snapshot(order.target, order.run_id, 0)
            if first is None or first.state is not SnapshotState.KEPT:
                raise FailedPrecondition(f"run {order.run_id} has no generation 0 to build on", field="generation")
        await tx.save_snapshot(
            Snapshot(
                name=snapshot_name(order.run_id, order.generation),
                target=order.target,
                driver=target.driver,
                machine=target.machine,
                run_id=order.run_id,
                generation=order.generation,
                state=SnapshotState.TAKING,
            )
        )

    # --- work --------------------------------------------------------------------------------------------------------

    async def _take(self, order: Order) -> Operation:
        async with self._slots, self._store.transaction() as tx:
            done = await self._held(tx, order)
            if done is not None:
                return done
            target = await self._snapshot_target(tx, order.target)
            snapshot = await tx.snapshot(order.target, order.run_id, order.generation)
            if snapshot is None:
                raise FailedPrecondition(f"generation {order.generation} was dropped meanwhile", field="generation")
            await self._complete_restore(tx, target)
            await faultpoint(BEFORE_SNAPSHOT)
            began = time.monotonic()
            with _tracer.start_as_current_span("checkpoint.snapshot", attributes=_attributes(order)):
                await self._drivers[snapshot.driver].snapshot(snapshot.machine, snapshot.name)
            took_s = time.monotonic() - began
            await faultpoint(AFTER_SNAPSHOT)
            await tx.save_snapshot(replace(snapshot, state=SnapshotState.KEPT))
            await trim_run(tx, order.target, order.run_id, keep=self._keep)
            return await _finish(tx, order.key, restored=False, took_s=took_s)

    async def _bring_back(self, order: Order, force: bool, volatile: Sequence[str]) -> Operation:
        async with self._slots, self._store.transaction() as tx:
            done = await self._held(tx, order)
            if done is not None:
                return done
            target = await self._snapshot_target(tx, order.target)
            snapshot = await _kept(tx, order, target)
            driver = self._drivers[snapshot.driver]
            began = time.monotonic()
            # Where an earlier restore was cut off, a comparison would be of two halves: bring it back without asking.
            if not force and await tx.unfinished_restore(order.target) is None:
                changed = await driver.changed(snapshot.machine, snapshot.name, volatile)
                if not changed:
                    return await _finish(tx, order.key, restored=False, took_s=time.monotonic() - began)
                await self._started(order.key, changed)
            elif force:
                await self._started(order.key, ())
            await faultpoint(BEFORE_RESTORE)
            with _tracer.start_as_current_span("checkpoint.restore", attributes=_attributes(order)):
                await driver.restore(snapshot.machine, snapshot.name)
            took_s = time.monotonic() - began
            await faultpoint(AFTER_RESTORE)
            if snapshot.taken_at is not None:
                await tx.undo_effects(order.target, order.run_id, snapshot.taken_at)
            await tx.finish_restores(order.target)
            return await _finish(tx, order.key, restored=True, took_s=took_s)

    async def _held(self, tx: Tx, order: Order) -> Operation | None:
        """Holds the lease row from here on. Gives the record where another process has carried the order out."""
        lease = await tx.lock_lease(order.target)
        known = await tx.operation(order.key)
        check_holder(lease, order.run_id, order.token)
        return known if known is not None and known.state is OperationState.DONE else None

    async def _started(self, key: str, changed: Sequence[str]) -> None:
        """Committed on its own, before the target is touched."""
        async with self._store.transaction() as tx:
            await tx.start_operation(key, list(changed)[: self._max_paths])

    async def _complete_restore(self, tx: Tx, target: Target) -> None:
        """Carries a restore to its end that a dead process or a failing driver left half done."""
        unfinished = await tx.unfinished_restore(target.name)
        if unfinished is None:
            return
        snapshot = await tx.snapshot(target.name, unfinished.run_id, unfinished.generation)
        if snapshot is None or snapshot.machine != target.machine:
            raise FailedPrecondition(
                f"a restore of target {target.name} was cut off and its saved state is gone; reset the machine",
                field="target",
            )
        log.warning("completing a restore that was cut off", extra={"target": target.name, "snapshot": snapshot.name})
        await self._drivers[snapshot.driver].restore(snapshot.machine, snapshot.name)
        await tx.finish_restores(target.name)


async def _kept(tx: Tx, order: Order, target: Target) -> Snapshot:
    """The saved state an order names. Raises NotFound where it was never whole or is no longer kept."""
    snapshot = await tx.snapshot(order.target, order.run_id, order.generation)
    if snapshot is None or snapshot.state is not SnapshotState.KEPT or snapshot.machine != target.machine:
        raise NotFound(
            f"run {order.run_id} has no saved generation {order.generation} of target {order.target}",
            field="generation",
        )
    return snapshot


async def _finish(tx: Tx, key: str, *, restored: bool, took_s: float) -> Operation:
    await tx.finish_operation(key, restored=restored, took_s=took_s)
    operation = await tx.operation(key)
    assert operation is not None  # inserted by _intend in an earlier transaction
    return operation


def _attributes(order: Order) -> dict[str, str | int]:
    return {"anneal.target": order.target, "anneal.run_id": order.run_id, "anneal.generation": order.generation}
