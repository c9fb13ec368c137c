"""Fault points: free when off, exact when armed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from anneal_runtime import faults
from anneal_runtime.clock import FakeClock, SystemClock
from anneal_runtime.errors import InvalidArgument

POINT = faults.declare("test.point")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


async def test_an_unarmed_point_does_nothing() -> None:
    await faults.faultpoint(POINT)
    faults.arm("other.point=raise")
    await faults.faultpoint(POINT)


async def test_a_point_armed_with_raise_raises_every_time() -> None:
    faults.arm(f"{POINT}=raise")
    for _ in range(2):
        with pytest.raises(faults.FaultInjected, match=r"test\.point"):
            await faults.faultpoint(POINT)


async def test_a_point_with_a_marker_fires_once(tmp_path: Path) -> None:
    faults.arm(f"{POINT}=raise@{tmp_path}/fired")
    with pytest.raises(faults.FaultInjected):
        await faults.faultpoint(POINT)
    await faults.faultpoint(POINT)
    assert (tmp_path / "fired").exists()


async def test_a_blocked_point_waits_until_it_is_cancelled() -> None:
    faults.arm(f"{POINT}=block")
    task = asyncio.create_task(faults.faultpoint(POINT))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_sleep_carries_its_seconds() -> None:
    assert faults.parse("a=sleep:2.5, b=kill@/m")["a"] == faults.Fault(action="sleep", seconds=2.5)


@pytest.mark.parametrize("spec", ["a", "a=", "=kill", "a=explode", "a=sleep", "a=sleep:soon", "a=kill:3"])
def test_a_specification_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        faults.arm(spec)
    assert caught.value.field == "ANNEAL_FAULTS"


def test_a_point_that_nobody_declares_is_refused() -> None:
    faults.arm(f"{POINT}=block,no.such=raise")
    with pytest.raises(InvalidArgument, match=r"no such fault point: no\.such"):
        faults.check_armed("test")
    assert POINT in faults.KNOWN


def test_a_point_of_another_service_is_for_that_one_to_refuse() -> None:
    faults.arm("worker.no_such=kill,supervisor.no_such=kill")
    faults.check_armed("gateway")
    with pytest.raises(InvalidArgument, match=r"no such fault point: worker\.no_such$"):
        faults.check_armed("worker")


def test_the_environment_arms_a_process_and_kill_is_kill() -> None:
    code = (
        "import asyncio; from anneal_runtime.faults import faultpoint; asyncio.run(faultpoint('a.b')); print('alive')"
    )
    environ = {**os.environ, "ANNEAL_FAULTS": "a.b=kill"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_a_stopped_process_sleeps_until_it_is_woken() -> None:
    code = (
        "import asyncio; from anneal_runtime.faults import faultpoint; asyncio.run(faultpoint('a.b')); print('woken')"
    )
    environ = {**os.environ, "ANNEAL_FAULTS": "a.b=stop"}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=10)[0] == b"woken\n"


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(now=100.0)
    clock.advance(2.5)
    clock.jump(50.0)
    assert (clock.now(), clock.monotonic()) == (50.0, 2.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    assert SystemClock().now() > 1_700_000_000
