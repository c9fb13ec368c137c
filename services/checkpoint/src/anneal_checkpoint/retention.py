"""Which saved states are kept. Dropping is two steps: marked here in the transaction, removed later by the sweeper.

During a run: its first generation, the last few, and milestones between them. After it all of that stays for the last
few runs, so that a whole run can be taken back and a fork can go on from a moment of it. A state that an unfinished
restore needs is never dropped.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

from anneal_runtime.errors import AnnealError
from anneal_runtime.faults import declare, faultpoint

from anneal_checkpoint.drivers.base import Driver
from anneal_checkpoint.model import DriverKind, Snapshot, SnapshotState
from anneal_checkpoint.store import Store, Tx

log = logging.getLogger(__name__)

AFTER_DROP = declare("checkpoint.after_drop")

# Answers to retries are kept for longer than anybody retries.
_OPERATION_LIFE_S = 7 * 86_400.0


def superfluous_in_run(snapshots: Sequence[Snapshot], keep: int, milestones: int) -> list[str]:
    """Names of a run's states beyond its first generation, the last `keep` and the milestones.

    snapshots: of one run, any order. Milestones are the multiples of the least power of two of which there are no more
    than `milestones`: as the run grows every second one goes.
    """
    newest_first = sorted(snapshots, key=lambda s: -s.generation)
    newest, stride = newest_first[0].generation if newest_first else 0, 1
    while milestones and newest // stride > milestones:
        stride *= 2
    older = [s for s in newest_first[keep:-1] if not milestones or s.generation % stride]
    return [s.name for s in older if s.state is not SnapshotState.DROPPING]


def superfluous_after_run(snapshots: Sequence[Snapshot], keep_runs: int) -> list[str]:
    """Names of a target's states beyond what is kept of the last `keep_runs` runs. snapshots: newest first."""
    runs = list(dict.fromkeys(s.run_id for s in snapshots if s.state is SnapshotState.KEPT))[:keep_runs]
    going = [s for s in snapshots if s.run_id not in runs or s.state is not SnapshotState.KEPT]
    return [s.name for s in going if s.state is not SnapshotState.DROPPING]


def recyclable(marked: Sequence[Snapshot], snapshot: Snapshot) -> str:
    """Name of a marked state of the same machine that the new one may be made of; empty: none. It was whole once."""
    same = (s for s in marked if (s.driver, s.machine) == (snapshot.driver, snapshot.machine))
    return next((s.name for s in same if s.name != snapshot.name and s.taken_at is not None), "")


async def retire_runs(tx: Tx, target: str, *, keep_runs: int) -> None:
    """Marks what a target no longer needs after a run has ended."""
    await _mark(tx, target, superfluous_after_run(await tx.snapshots(target), keep_runs))
    await tx.purge_operations(_OPERATION_LIFE_S)


async def _mark(tx: Tx, target: str, names: Sequence[str]) -> None:
    unfinished = await tx.unfinished_restore(target)
    needed = None
    if unfinished is not None:
        needed = await tx.snapshot(target, unfinished.run_id, unfinished.generation)
    await tx.mark_snapshots([n for n in names if needed is None or n != needed.name], SnapshotState.DROPPING)


class Sweeper:
    """Removes marked states from where their driver keeps them, in the background; a failed try is repeated later."""

    def __init__(self, store: Store, drivers: Mapping[DriverKind, Driver], *, interval_s: float) -> None:
        self._store = store
        self._drivers = drivers
        self._interval_s = interval_s
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts sweeping; the first sweep takes up what an earlier process left."""
        self._wanted.set()
        self._task = asyncio.create_task(self._run(), name="sweeper")

    def wake(self) -> None:
        """Asks for a sweep soon."""
        self._wanted.set()

    async def stop(self) -> None:
        """Stops between two removals; what is left is taken up at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> None:
        """One pass over everything that is marked."""
        async with self._store.transaction() as tx:
            marked = await tx.snapshots_to_drop()
        for snapshot in marked:
            try:
                await self._drivers[snapshot.driver].drop(snapshot.machine, snapshot.name)
            except AnnealError as e:
                log.warning("a saved state could not be removed", extra={"snapshot": snapshot.name, "error": str(e)})
                continue
            await faultpoint(AFTER_DROP)
            async with self._store.transaction() as tx:
                await tx.mark_snapshots([snapshot.name], SnapshotState.DROPPED)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._interval_s)
            self._wanted.clear()
            try:
                await self.sweep()
            except Exception:
                # A database that is away for a moment must not end sweeping for good.
                log.exception("sweep failed")
