"""A worker that slept between the ledger's leave and the target: SIGSTOP, the world goes on, SIGCONT."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal_contracts.facts import Action, FixSource
from anneal_contracts.work import Apply
from anneal_runtime.errors import StaleToken
from anneal_runtime.testing import eventually
from google.protobuf.duration_pb2 import Duration

from tests.e2e.effects.conftest import Machine
from tests.support.processes import ServiceProcess, service_process

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub

    Stub: TypeAlias = CheckpointServiceAsyncStub
else:
    Stub = CheckpointServiceStub

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

# Between the ledger's leave and the first word to the target.
HERE = "worker.before_apply=stop"


@dataclass
class Ledger:
    """A checkpoint service as a process of its own, with the machine as target `box`."""

    service: ServiceProcess
    stub: Stub
    token: str

    async def acquire(self, run_id: str, ttl_s: int = 300) -> int:
        request = cp.AcquireLeaseRequest(
            idempotency_key=f"a-{run_id}", target="box", run_id=run_id, ttl=Duration(seconds=ttl_s)
        )
        return (await self.stub.AcquireLease(request)).fencing_token

    async def states(self, run_id: str) -> dict[str, str]:
        listed = await self.stub.ListEffects(cp.ListEffectsRequest(run_id=run_id))
        return {e.item_id: e.state for e in listed.effects}


@pytest_asyncio.fixture
async def ledger(postgres_dsn: str, auth_token: str, machine: Machine) -> AsyncIterator[Ledger]:
    home = os.environ.get("ANNEAL_HOME") or str(Path.home() / ".local/share/anneal")
    async with service_process("checkpoint", auth_token, {"POSTGRES_DSN": postgres_dsn, "HOME": home}) as service:
        stub: Stub = CheckpointServiceStub(service.wire)
        target = cp.Target(name="box", driver="nspawn", machine=machine.name)
        await stub.AddTarget(cp.AddTargetRequest(idempotency_key="add", target=target))
        yield Ledger(service, stub, auth_token)


def effect(run_id: str, token: int, seq: int, item_id: str) -> Apply:
    """A command that leaves the file /etc/paused/ITEM."""
    script = f"mkdir -p /etc/paused; echo ran >> /etc/paused/{item_id}"
    return Apply(
        command_id=f"{run_id}-{seq}",
        run_id=run_id,
        skill="scratch",
        target="box",
        fencing_token=token,
        deadline=time.time() + 100,
        item_id=item_id,
        attempt=1,
        action=Action(source=FixSource.VENDOR, kind="bash", title="t", content=script, timeout_s=20),
        effect_key=f"paused-{run_id}-{item_id}-{token}-{time.time_ns()}",
        command_seq=seq,
    )


@asynccontextmanager
async def worker(ledger: Ledger, command: Apply, faults: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**os.environ, "ANNEAL_FAULTS": faults}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.lone_worker",
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    order: Mapping[str, Any] = {
        "checkpoint": ledger.service.address,
        "token": ledger.token,
        "command": command.model_dump(mode="json"),
    }
    assert child.stdin is not None
    child.stdin.write(json.dumps(order).encode())
    child.stdin.close()
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def said(child: asyncio.subprocess.Process) -> dict[str, Any]:
    """What a worker made of its command."""
    assert child.stdout is not None
    answer: dict[str, Any] = json.loads(await asyncio.wait_for(child.stdout.read(), 60))
    return answer


async def asleep(child: asyncio.subprocess.Process) -> None:
    def stopped() -> bool:
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    await eventually(stopped, timeout=30)


async def left_on(machine: Machine) -> list[str]:
    return (await machine.sh("ls /etc/paused 2>/dev/null || true")).split()


async def test_a_worker_that_slept_while_its_lease_ran_out_changes_nothing_although_nobody_else_came(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.acquire("run-1", ttl_s=5)
    async with worker(ledger, effect("run-1", token, 4, "expired"), HERE) as sleeper:
        await asleep(sleeper)
        assert await ledger.states("run-1") == {"expired": "intended"}
        await asyncio.sleep(5.5)
        sleeper.send_signal(signal.SIGCONT)
        answer = await said(sleeper)
    assert answer["error"] == "fenced", answer
    assert "lease" in answer["message"]
    assert "expired" not in await left_on(machine)


async def test_a_worker_that_slept_while_another_run_took_the_target_changes_nothing(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.acquire("run-1", ttl_s=5)
    async with worker(ledger, effect("run-1", token, 400, "overtaken"), HERE) as sleeper:
        await asleep(sleeper)
        await asyncio.sleep(5.5)
        newer = await ledger.acquire("run-2")
        assert newer > token
        async with worker(ledger, effect("run-2", newer, 4, "newer")) as other:
            assert (await said(other))["state"] == "applied"
        sleeper.send_signal(signal.SIGCONT)
        assert (await said(sleeper))["error"] == "fenced"
    assert "overtaken" not in await left_on(machine)
    assert await ledger.states("run-1") == {"overtaken": "unknown"}


async def test_a_worker_that_slept_while_its_own_run_went_on_changes_nothing(ledger: Ledger, machine: Machine) -> None:
    token = await ledger.acquire("run-1")
    async with worker(ledger, effect("run-1", token, 4, "behind"), HERE) as sleeper:
        await asleep(sleeper)
        async with worker(ledger, effect("run-1", token, 9, "ahead")) as other:
            assert (await said(other))["state"] == "applied"
        sleeper.send_signal(signal.SIGCONT)
        answer = await said(sleeper)
    assert (answer["error"], "command 4" in answer["message"]) == ("fenced", True), answer
    assert "behind" not in await left_on(machine)


@pytest.mark.parametrize("changed", [True, False])
async def test_a_worker_that_slept_through_a_restore_changes_nothing(
    ledger: Ledger, machine: Machine, changed: bool
) -> None:
    token = await ledger.acquire("run-1")
    await machine.sh("rm -rf /etc/paused /etc/changed")
    await ledger.stub.Snapshot(
        cp.SnapshotRequest(
            idempotency_key=f"s-{changed}",
            target="box",
            run_id="run-1",
            fencing_token=token,
            generation=0,
            command_seq=3,
        )
    )
    async with worker(ledger, effect("run-1", token, 4, "undone"), HERE) as sleeper:
        await asleep(sleeper)
        if changed:
            await machine.sh("touch /etc/changed")
        # The same lease, and nothing has run since: the target's own memory of commands does not know better.
        restored = await ledger.stub.Restore(
            cp.RestoreRequest(
                idempotency_key=f"r-{changed}",
                target="box",
                run_id="run-1",
                fencing_token=token,
                generation=0,
                command_seq=6,
                volatile_paths=["/var/**", "/run/**", "/tmp/**"],
            ),
            timeout=60,
        )
        assert restored.restored
        sleeper.send_signal(signal.SIGCONT)
        answer = await said(sleeper)
    assert (answer["error"], "booted" in answer["message"]) == ("fenced", True), answer
    assert await left_on(machine) == []
    assert await ledger.states("run-1") == {"undone": "reverted"}


async def test_a_worker_that_slept_before_it_asked_the_ledger_is_refused_there(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.acquire("run-1")
    async with worker(ledger, effect("run-1", token, 4, "late"), "worker.before_intent=stop") as sleeper:
        await asleep(sleeper)
        async with worker(ledger, effect("run-1", token, 9, "on-time")) as other:
            assert (await said(other))["state"] == "applied"
        sleeper.send_signal(signal.SIGCONT)
        assert (await said(sleeper))["error"] == StaleToken.reason
    assert "late" not in await left_on(machine)
