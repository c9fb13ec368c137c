import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from anneal_checkpoint.drivers.nspawn import NspawnDriver
from anneal_checkpoint.model import DriverKind, Target
from anneal_lab import Access, LabError, MachineStatus
from anneal_runtime.errors import InvalidArgument, NotFound, TargetUnreachable, Unavailable

ACCESS = Access(host="10.0.0.2", port=22, user="ops", key_path=Path("/key"), host_key="ssh-ed25519 AAAA")
TARGET = Target(name="lab", driver=DriverKind.NSPAWN, machine="m1")


class FakeLab:
    """Remembers who was inside at the same time; `go` lets the calls end."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)
        self.inside: set[str] = set()
        self.overlaps: list[str] = []
        self.log: list[str] = []
        self.state = "running"
        self.image: str | None = "image"
        self.error: Exception | None = None

    def _call(self, machine: str, what: str) -> None:
        if machine in self.inside:
            self.overlaps.append(what)
        self.inside.add(machine)
        self.entered.release()
        self.go.wait(5)
        self.inside.discard(machine)
        self.log.append(what)
        if self.error:
            raise self.error

    def status(self, name: str) -> MachineStatus:
        if not name.isalnum():
            raise LabError(f"machine name {name!r} is not valid")
        access = ACCESS if self.state == "running" else None
        return MachineStatus(name=name, state=self.state, image="image", access=access, generations=("g-0",))

    def image_id(self) -> str | None:
        return self.image

    def access(self, name: str) -> Access:
        if self.state != "running":
            raise LabError(f"machine {name!r} is not running")
        return ACCESS

    def snapshot(self, name: str, generation: str, *, recycle: str = "") -> None:
        self._call(name, f"snapshot {generation}")

    def restore(self, name: str, generation: str, *, boot: bool) -> None:
        assert not boot
        self._call(name, f"restore {generation}")

    def up(self, name: str) -> None:
        self._call(name, "up")

    def changed(self, name: str, generation: str, ignore: Sequence[str]) -> list[str]:
        self._call(name, f"changed {generation}")
        return ["/etc/x"]

    def drop(self, name: str, generation: str) -> None:
        self._call(name, f"drop {generation}")


@pytest.fixture
def lab() -> FakeLab:
    return FakeLab()


@pytest.fixture
def driver(lab: FakeLab) -> NspawnDriver:
    return NspawnDriver(lab)  # type: ignore[arg-type]


async def test_the_lab_says_how_to_reach_a_machine(driver: NspawnDriver, lab: FakeLab) -> None:
    reach = await driver.reach(TARGET)
    assert (reach.host, reach.key_path, reach.host_key) == ("10.0.0.2", "/key", "ssh-ed25519 AAAA")
    lab.state = "stopped"
    with pytest.raises(TargetUnreachable, match="m1"):
        await driver.reach(TARGET)


@pytest.mark.parametrize(
    ("field", "value"),
    [("host", "h"), ("port", 22), ("user", "u"), ("key_path", "/k"), ("host_key", "k"), ("machine", "")],
)
async def test_a_wrong_field_is_named(driver: NspawnDriver, field: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await driver.check(replace(TARGET, **{field: value}))  # type: ignore[arg-type]
    assert refused.value.field == field


async def test_a_machine_may_be_off_or_not_yet_made_but_not_without_an_image(
    driver: NspawnDriver, lab: FakeLab
) -> None:
    for lab.state in ("running", "stopped", "absent"):
        assert await driver.check(TARGET) == TARGET
    lab.image = None
    with pytest.raises(InvalidArgument, match="anneal lab build") as refused:
        await driver.check(TARGET)
    assert refused.value.field == "machine"
    with pytest.raises(InvalidArgument, match="not valid") as named:
        await driver.check(replace(TARGET, machine="../x"))
    assert named.value.field == "machine"


async def test_calls_for_one_machine_stand_in_a_row_and_other_machines_do_not_wait(
    driver: NspawnDriver, lab: FakeLab
) -> None:
    lab.go.clear()
    calls = [
        asyncio.create_task(driver.snapshot("m1", "g-0")),
        asyncio.create_task(driver.restore("m1", "g-0")),
        asyncio.create_task(driver.snapshot("m2", "g-0")),
    ]
    for _ in range(2):
        assert await asyncio.to_thread(lab.entered.acquire, True, 5)
    assert lab.inside == {"m1", "m2"}
    lab.go.set()
    await asyncio.gather(*calls)
    assert not lab.overlaps


async def test_a_caller_that_gives_up_does_not_let_the_next_one_in_too_early(
    driver: NspawnDriver, lab: FakeLab
) -> None:
    lab.go.clear()
    impatient = asyncio.create_task(driver.restore("m1", "g-0"))
    await asyncio.to_thread(lab.entered.acquire)
    impatient.cancel()
    following = asyncio.create_task(driver.snapshot("m1", "g-1"))
    done, _ = await asyncio.wait({impatient, following}, timeout=0.05)
    assert not done
    lab.go.set()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    await following
    assert lab.log == ["restore g-0", "up", "snapshot g-1"]
    assert not lab.overlaps


async def test_a_state_that_is_gone_is_not_found_and_dropping_it_is_no_error(
    driver: NspawnDriver, lab: FakeLab
) -> None:
    with pytest.raises(NotFound, match="reset"):
        await driver.restore("m1", "g-9")
    with pytest.raises(NotFound):
        await driver.changed("m1", "g-9", [])
    await driver.drop("m1", "g-9")
    assert lab.log == []
    await driver.drop("m1", "g-0")
    assert lab.log == ["drop g-0"]


@pytest.mark.parametrize("error", [LabError("rsync failed"), OSError(28, "No space left on device")])
async def test_a_failing_lab_may_be_tried_again(driver: NspawnDriver, lab: FakeLab, error: Exception) -> None:
    lab.error = error
    with pytest.raises(Unavailable, match=r"snapshot of lab machine m1, state g-1, failed: .*(rsync|No space)"):
        await driver.snapshot("m1", "g-1")
