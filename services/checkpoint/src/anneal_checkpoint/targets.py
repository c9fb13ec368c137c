"""The table of targets: registered once, checked field by field, never changed in place."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from anneal_contracts.canonical import canonical_json
from anneal_runtime.errors import AlreadyExists, InvalidArgument, TargetUnreachable
from anneal_runtime.faults import declare, faultpoint

from anneal_checkpoint.checks import check_key, check_target_name
from anneal_checkpoint.drivers.base import Driver
from anneal_checkpoint.errors import leased, missing_target
from anneal_checkpoint.model import DriverKind, Reach, Target, TargetView
from anneal_checkpoint.retention import retire_runs
from anneal_checkpoint.store import Store

AFTER_TARGET = declare("checkpoint.after_target")

_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@_.:\\-]{0,254}")
_SERVICES_MAX = 50


class Targets:
    """Adds, shows and removes targets."""

    def __init__(self, store: Store, drivers: Mapping[DriverKind, Driver], *, wake_sweeper: Callable[[], None]) -> None:
        self._store = store
        self._drivers = drivers
        self._wake_sweeper = wake_sweeper

    def driver(self, target: Target) -> Driver:
        """The driver of a registered target."""
        return self._drivers[target.driver]

    async def add(self, key: str, target: Target) -> TargetView:
        """Registers a target. Repeating it is no error; AlreadyExists where the name has other settings."""
        check_key(key)
        check_target_name(target.name, "name")
        checked = await self.driver(target).check(replace(target, mission_services=_units(target.mission_services)))
        async with self._store.transaction() as tx:

            async def insert() -> bytes:
                known = None if await tx.insert_target(checked) else await tx.target(checked.name)
                if known is not None and known != checked:
                    raise AlreadyExists(
                        f"target {checked.name} exists with other settings ({_difference(known, checked)}); "
                        f"remove it first or take another name",
                        field="name",
                    )
                return b""

            await tx.once(f"AddTarget:{key}", canonical_json(asdict(checked)), insert)
        await faultpoint(AFTER_TARGET)
        async with self._store.transaction() as tx:
            holders = await tx.holders()
        return await self._listed(checked, holders.get(checked.name, ""))

    async def get(self, name: str) -> TargetView:
        """A target and how to reach it now. Raises NotFound, TargetUnreachable."""
        check_target_name(name, "name")
        async with self._store.glance() as tx:
            target, leased_by = await tx.held_target(name)
        if target is None:
            raise missing_target(name)
        return await self._view(target, leased_by)

    async def every(self) -> list[TargetView]:
        """All targets by name. One that cannot be reached now is listed with an empty reach."""
        async with self._store.transaction() as tx:
            targets = await tx.targets()
            holders = await tx.holders()
        return list(await asyncio.gather(*(self._listed(t, holders.get(t.name, "")) for t in targets)))

    async def remove(self, key: str, name: str) -> None:
        """Removes a target and its saved states. Raises NotFound, Leased."""
        check_key(key)
        check_target_name(name, "name")
        async with self._store.transaction() as tx:

            async def delete() -> bytes:
                lease = await tx.lock_lease(name)
                if await tx.target(name) is None:
                    raise missing_target(name)
                if lease.live:
                    raise leased(lease)
                await tx.clear_lease(name)
                await tx.abandon_effects(name, lease.run_id, "its target was removed before the end was known")
                await tx.finish_restores(name)
                await retire_runs(tx, name, keep_runs=0)
                await tx.delete_target(name)
                return b""

            await tx.once(f"RemoveTarget:{key}", canonical_json({"name": name}), delete)
        await faultpoint(AFTER_TARGET)
        self._wake_sweeper()

    async def _view(self, target: Target, leased_by: str) -> TargetView:
        driver = self.driver(target)
        reach = await driver.reach(target)
        return TargetView(target=target, reach=reach, can_snapshot=driver.can_snapshot, leased_by=leased_by)

    async def _listed(self, target: Target, leased_by: str) -> TargetView:
        try:
            return await self._view(target, leased_by)
        except TargetUnreachable:
            can_snapshot = self.driver(target).can_snapshot
            return TargetView(target=target, reach=Reach(), can_snapshot=can_snapshot, leased_by=leased_by)


def _units(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted and without repeats; a name without a suffix is a service."""
    if len(names) > _SERVICES_MAX:
        raise InvalidArgument(f"mission_services has at most {_SERVICES_MAX} names", field="mission_services")
    for name in names:
        if not _UNIT.fullmatch(name):
            raise InvalidArgument(f"mission_services: {name[:80]!r} is no unit name", field="mission_services")
    return tuple(sorted({name if "." in name else f"{name}.service" for name in names}))


def _difference(known: Target, wanted: Target) -> str:
    """Names of the fields that differ, for people. Values stay out: a key's path is nobody else's business."""
    one, two = asdict(known), asdict(wanted)
    return ", ".join(f for f in one if one[f] != two[f])
