"""Machines of the lab: whole-root snapshots, taken and brought back from outside."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from anneal_lab import Lab, LabError
from anneal_runtime.errors import AnnealError, InvalidArgument, NotFound, TargetUnreachable, Unavailable
from anneal_runtime.faults import declare, faultpoint

from anneal_checkpoint.model import Reach, Target

T = TypeVar("T")

BEFORE_BOOT = declare("checkpoint.before_boot")


class NspawnDriver:
    """Calls the lab in threads, one at a time a machine. Idempotent, as the lab makes a whole state anew each time."""

    can_snapshot = True

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._rows: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def check(self, target: Target) -> Target:
        """Only machine is given; the rest comes from the lab, and may be another after a reset."""
        for field in ("host", "port", "user", "key_path", "host_key"):
            if getattr(target, field):
                raise InvalidArgument(f"{field} comes from the lab for driver nspawn; leave it empty", field=field)
        if not target.machine:
            raise InvalidArgument("machine is the name of a lab machine; see: anneal lab status", field="machine")
        try:
            status = await asyncio.to_thread(self._lab.status, target.machine)
        except LabError as e:
            raise InvalidArgument(str(e), field="machine") from e
        # A machine is made from the image when it first goes up; with neither there is nothing to be a target.
        if status.state == "absent" and await asyncio.to_thread(self._lab.image_id) is None:
            raise InvalidArgument("the lab has no image to make machines from; run: anneal lab build", field="machine")
        return target

    async def reach(self, target: Target) -> Reach:
        """Waits while a restore is under way, so that the answer holds."""

        def broken(e: Exception) -> AnnealError:
            return TargetUnreachable(f"lab machine {target.machine}: {e}", field="target")

        access = await self._in_row(target.machine, lambda: self._lab.access(target.machine), broken)
        return Reach(
            host=access.host,
            port=access.port,
            user=access.user,
            key_path=str(access.key_path),
            host_key=access.host_key,
        )

    async def snapshot(self, machine: str, name: str, *, recycle: str = "") -> None:
        def snapshot() -> None:
            self._lab.snapshot(machine, name, recycle=recycle)

        await self._in_row(machine, snapshot, _failed("snapshot", machine, name))

    async def restore(self, machine: str, name: str) -> None:
        def put_back() -> None:
            self._require(machine, name)
            self._lab.restore(machine, name, boot=False)

        async def put_back_and_boot() -> None:
            await _threaded(put_back, _failed("restore", machine, name))
            await faultpoint(BEFORE_BOOT)
            await _threaded(lambda: self._lab.up(machine), _failed("boot", machine, name))

        async with self._rows[machine]:
            await _to_its_end(put_back_and_boot())

    async def changed(self, machine: str, name: str, ignore: Sequence[str]) -> Sequence[str]:
        def changed() -> Sequence[str]:
            self._require(machine, name)
            return self._lab.changed(machine, name, ignore=list(ignore))

        return await self._in_row(machine, changed, _failed("comparison", machine, name))

    async def drop(self, machine: str, name: str) -> None:
        def drop() -> None:
            if name in self._lab.status(machine).generations:
                self._lab.drop(machine, name)

        await self._in_row(machine, drop, _failed("removal", machine, name))

    def _require(self, machine: str, name: str) -> None:
        """Trying again helps against a full disk, but not against a state that a reset of the machine has removed."""
        if name not in self._lab.status(machine).generations:
            raise NotFound(f"lab machine {machine} has no saved state {name}: was it reset?", field="generation")

    async def _in_row(self, machine: str, call: Callable[[], T], wrong: Callable[[Exception], AnnealError]) -> T:
        """Runs call in a thread while no other call for the machine runs, also when the caller stops waiting."""
        async with self._rows[machine]:
            return await _threaded(call, wrong)


async def _threaded(call: Callable[[], T], wrong: Callable[[Exception], AnnealError]) -> T:
    try:
        return await _to_its_end(asyncio.to_thread(call))
    except (LabError, OSError) as e:
        raise wrong(e) from e


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What work gives. A caller who stops waiting goes when it has ended, well or not: a thread cannot be stopped."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _failed(what: str, machine: str, name: str) -> Callable[[Exception], AnnealError]:
    return lambda e: Unavailable(f"{what} of lab machine {machine}, state {name}, failed: {e}", field="target")
