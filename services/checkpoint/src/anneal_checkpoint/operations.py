"""Snapshots and restores: changes outside the database, made safe to repeat.

1. One transaction checks the lease and records the intent under the idempotency key.
2. The driver does the work while this process holds the target's lease row: nobody can take the target over meanwhile.
3. The end is recorded. A repeated key gets the recorded answer; a key whose process died is carried out again, which is
   safe because both operations make a whole state anew.
A restore that began and has no end leaves a target that nobody may build on: the next start of a service completes it,
or the next snapshot or restore of the target does so first, and until then no effect may begin. Work under way goes on
when its caller stops waiting.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from anneal_contracts.canonical import digest
from anneal_runtime.errors import AnnealError, FailedPrecondition, NotFound
from anneal_runtime.faults import declare, faultpoint
from anneal_runtime.telemetry import tracer

from anneal_checkpoint.errors import missing_target
from anneal_checkpoint.leases import check_holder
from anneal_checkpoint.model import (
    Operation,
    OperationKind,
    OperationState,
    Scene,
    Snapshot,
    SnapshotState,
    Target,
)
from anneal_checkpoint.orders import (
    Drivers,
    Order,
    able_target,
    intend_restore,
    intend_snapshot,
    kept_state,
    look,
    operation_of,
    taking,
)
from anneal_checkpoint.retention import recyclable, superfluous_in_run
from anneal_checkpoint.store import Store, Tx

log = logging.getLogger(__name__)
_tracer = tracer(__name__)

AFTER_INTENT = declare("checkpoint.after_intent")
BEFORE_SNAPSHOT = declare("checkpoint.before_snapshot")
AFTER_SNAPSHOT = declare("checkpoint.after_snapshot")
BEFORE_RESTORE = declare("checkpoint.before_restore")
AFTER_RESTORE = declare("checkpoint.after_restore")
AFTER_OPERATION = declare("checkpoint.after_operation")

_GLOBS_MAX = 500


class Operations:
    """Carries operations out. keep, milestones: see retention; max_paths: changed paths in an answer."""

    def __init__(
        self,
        store: Store,
        drivers: Drivers,
        *,
        keep: int,
        milestones: int,
        max_paths: int,
        at_once: int,
    ) -> None:
        self._store = store
        self._drivers = drivers
        self._keep = keep
        self._milestones = milestones
        self._max_paths = max_paths
        self._slots = asyncio.Semaphore(at_once)
        self._running: dict[str, asyncio.Task[Operation]] = {}
        self._recovery: asyncio.Task[None] | None = None

    async def snapshot(self, order: Order) -> Operation:
        """Saves the target as a new generation. Raises StaleToken, FailedPrecondition, AlreadyExists, Unavailable."""
        request_hash = digest("snapshot", order.target, order.run_id, order.generation)
        return await self._carried(f"{order.key} {request_hash}", self._take(order, request_hash))

    async def restore(self, order: Order, *, force: bool, volatile: Sequence[str]) -> Operation:
        """Brings a generation back unless nothing has changed. Raises as snapshot does, and NotFound."""
        if len(volatile) > _GLOBS_MAX:
            raise FailedPrecondition(f"at most {_GLOBS_MAX} volatile_paths", field="volatile_paths")
        asked = ["restore", order.target, order.run_id, order.generation, force, list(volatile)]
        request_hash = digest(*asked, *([order.from_run] if order.from_run else []))
        async with self._store.transaction() as tx:
            scene = await look(tx, order, request_hash, self._drivers)
            if scene.done is not None:
                return scene.done
            await intend_restore(tx, order, scene, request_hash, self._drivers)
        await faultpoint(AFTER_INTENT)
        return await self._carried(order.key, self._bring_back(order, force, volatile))

    async def generations(self, target: str, run_id: str) -> Sequence[Snapshot]:
        """What of a run can be brought back on the target's present machine, lowest generation first."""
        async with self._store.transaction() as tx:
            known = await tx.target(target)
            saved = await tx.snapshots(target, run_id=run_id)
        if known is None:
            raise missing_target(target)
        kept = [s for s in saved if s.state is SnapshotState.KEPT and s.machine == known.machine]
        return sorted(kept, key=lambda s: s.generation)

    def start(self) -> None:
        """Completes in the background what a dead process left half done: its run may never come back."""
        self._recovery = asyncio.create_task(self._recover(), name="recovery")

    async def close(self) -> None:
        """Waits for what is under way."""
        under_way = [*self._running.values(), *([self._recovery] if self._recovery else [])]
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _recover(self) -> None:
        async with self._store.transaction() as tx:
            names = await tx.half_restored()
        for name in names:
            try:
                async with self._slots, self._store.transaction() as tx:
                    await tx.lock_lease(name)
                    target = able_target(await tx.target(name), name, self._drivers)
                    await self._complete_restore(tx, target, await tx.unfinished_restore(name))
            except Exception:
                # The record stays, and with it the refusal to build on the target.
                log.exception("a restore that was cut off could not be completed", extra={"target": name})

    async def _carried(self, key: str, work: Coroutine[Any, Any, Operation]) -> Operation:
        """Runs work in a task of its own; a second caller with the same key waits for the same task."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(work, name=f"operation {key}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        else:
            work.close()
        done = await asyncio.shield(task)
        await faultpoint(AFTER_OPERATION)
        return done

    def _ended(self, key: str, task: asyncio.Task[Operation]) -> None:
        del self._running[key]
        error = None if task.cancelled() else task.exception()
        if error is not None and not (isinstance(error, AnnealError) and not error.retryable):
            # Its caller may have gone; the record stays unfinished, so that a retry carries it out.
            log.warning("operation failed", extra={"key": key, "error": str(error)})

    # --- work --------------------------------------------------------------------------------------------------------

    async def _take(self, order: Order, request_hash: str) -> Operation:
        """In one transaction where the intent was committed before, else in two."""
        async with self._slots:
            async with self._store.transaction() as tx:
                scene = await look(tx, order, request_hash, self._drivers)
                if scene.done is not None:
                    return scene.done
                if intended := await intend_snapshot(tx, order, scene, self._drivers):
                    return await self._save(tx, order, intended, request_hash)
            async with self._store.transaction() as tx:
                scene = await self._held(tx, order)
                return scene.done or await self._save(tx, order, scene, request_hash)

    async def _save(self, tx: Tx, order: Order, scene: Scene, request_hash: str) -> Operation:
        """tx holds the lease row; the state's intent is committed."""
        await faultpoint(AFTER_INTENT)
        target = able_target(scene.target, order.target, self._drivers)
        snapshot = scene.snapshot(order.generation)
        if snapshot is None:
            raise FailedPrecondition(f"generation {order.generation} was dropped meanwhile", field="generation")
        await self._complete_restore(tx, target, scene.unfinished)
        spare = recyclable(scene.marked, snapshot)
        await faultpoint(BEFORE_SNAPSHOT)
        began = time.monotonic()
        attributes = _attributes(order.target, order.run_id, order.generation)
        with _tracer.start_as_current_span("checkpoint.snapshot", attributes=attributes):
            await self._drivers[snapshot.driver].snapshot(snapshot.machine, snapshot.name, recycle=spare)
        took_s = time.monotonic() - began
        await faultpoint(AFTER_SNAPSHOT)
        done = replace(
            operation_of(order, OperationKind.SNAPSHOT, request_hash), state=OperationState.DONE, took_s=took_s
        )
        # No restore is unfinished here, so none needs what is dropped.
        taken = [s for s in scene.saved if s.generation <= order.generation]
        superfluous = superfluous_in_run(taken, self._keep, self._milestones)
        await tx.keep_snapshot(
            snapshot.name,
            done,
            dropping=superfluous,
            dropped=[spare] if spare else [],
            following=taking(order, target, order.generation + 1),
        )
        return done

    async def _bring_back(self, order: Order, force: bool, volatile: Sequence[str]) -> Operation:
        async with self._slots, self._store.transaction() as tx:
            scene = await self._held(tx, order)
            if scene.done is not None:
                return scene.done
            snapshot = kept_state(scene, order, able_target(scene.target, order.target, self._drivers))
            driver = self._drivers[snapshot.driver]
            began = time.monotonic()
            # An effect without an end may still be on its way: after a boot the target refuses it.
            force = force or await tx.has_open_effects(order.target, order.run_id)
            # Where an earlier restore was cut off, a comparison would be of two halves: bring it back without asking.
            if not force and scene.unfinished is None:
                changed = await driver.changed(snapshot.machine, snapshot.name, volatile)
                if not changed:
                    took_s = time.monotonic() - began
                    return await tx.finish_operation(order.key, restored=False, took_s=took_s)
                await self._started(order.key, changed)
            elif force:
                await self._started(order.key, ())
            await self._put_back(tx, snapshot)
            return await tx.finish_operation(order.key, restored=True, took_s=time.monotonic() - began)

    async def _put_back(self, tx: Tx, snapshot: Snapshot) -> None:
        """The one place where a target goes back; tx holds its lease row."""
        await faultpoint(BEFORE_RESTORE)
        attributes = _attributes(snapshot.target, snapshot.run_id, snapshot.generation)
        with _tracer.start_as_current_span("checkpoint.restore", attributes=attributes):
            await self._drivers[snapshot.driver].restore(snapshot.machine, snapshot.name)
        await faultpoint(AFTER_RESTORE)
        if snapshot.taken_at is not None:
            await tx.revert_effects(snapshot.target, snapshot.taken_at)
        await tx.finish_restores(snapshot.target)

    async def _held(self, tx: Tx, order: Order) -> Scene:
        """Holds the lease row from here on; what is recorded may be that another process has carried the order out."""
        lease = await tx.lock_lease(order.target)
        scene = await tx.scene(order.target, order.of_run, order.generation, order.key)
        check_holder(lease, order.run_id, order.token)
        return scene

    async def _started(self, key: str, changed: Sequence[str]) -> None:
        """Committed on its own, before the target is touched."""
        async with self._store.transaction() as tx:
            await tx.start_operation(key, list(changed)[: self._max_paths])

    async def _complete_restore(self, tx: Tx, target: Target, unfinished: Operation | None) -> None:
        """Carries a restore to its end that a dead process or a failing driver left half done."""
        if unfinished is None:
            return
        log.warning("completing a restore that was cut off", extra={"target": target.name, "key": unfinished.key})
        snapshot = await tx.snapshot(target.name, unfinished.run_id, unfinished.generation)
        try:
            if snapshot is None or snapshot.machine != target.machine:
                raise NotFound("the saved state is of another machine", field="generation")
            await self._put_back(tx, snapshot)
        except NotFound as e:
            # Only a person who resets or replaces a machine takes its saved states away: that is the new beginning.
            log.warning("the machine was reset since", extra={"target": target.name, "error": str(e)})
            await tx.finish_restores(target.name)


def _attributes(target: str, run_id: str, generation: int) -> dict[str, str | int]:
    return {"anneal.target": target, "anneal.run_id": run_id, "anneal.generation": generation}
