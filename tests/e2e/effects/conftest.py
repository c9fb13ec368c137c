"""A machine of the lab that this folder alone uses, a checkpoint service that knows it, and workers for one command."""

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal_contracts.facts import Action, FixSource, TargetAccess
from anneal_contracts.work import Apply
from anneal_lab import Lab
from anneal_runtime.testing import eventually
from anneal_skillkit.ssh import SshSession, connect
from google.protobuf.duration_pb2 import Duration

from tests.support.processes import ServiceProcess, service_process

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub

    Stub: TypeAlias = CheckpointServiceAsyncStub
else:
    Stub = CheckpointServiceStub


@dataclass
class Machine:
    """A running machine. access: how a session is opened, as for a target of driver ssh."""

    lab: Lab
    name: str
    access: TargetAccess

    async def sh(self, script: str) -> str:
        """A script as root, by a session of its own; it must succeed."""
        session = await connect(self.access)
        try:
            done = await session.run(["bash", "-c", script], timeout_s=60)
        finally:
            await session.close()
        assert done.exit_code == 0, done.stderr.decode()
        return done.stdout.decode()

    async def pull_the_plug(self) -> None:
        """Off at once, and on again."""
        await asyncio.to_thread(self.lab.down, self.name)
        await asyncio.to_thread(self.lab.up, self.name)


@pytest.fixture(scope="package")
def machine() -> Iterator[Machine]:
    lab, name = Lab(), f"ef{secrets.token_hex(3)}"
    assert lab.image_id(), "the lab has no image; run: make lab-build"
    reach = lab.clone("", name)
    access = TargetAccess(
        name=name,
        driver="ssh",
        host=reach.host,
        port=reach.port,
        user=reach.user,
        key_path=str(reach.key_path),
        host_key=reach.host_key,
        can_snapshot=False,
    )
    try:
        yield Machine(lab, name, access)
    finally:
        lab.delete(name)


@pytest_asyncio.fixture
async def session(machine: Machine) -> AsyncIterator[SshSession]:
    opened = await connect(machine.access)
    yield opened
    await opened.close()


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

    async def token_after_this(self, run_id: str) -> int:
        """The token with which the run will get the target next."""
        token = await self.acquire(run_id)
        await self.stub.ReleaseLease(
            cp.ReleaseLeaseRequest(idempotency_key=f"r-{run_id}", target="box", run_id=run_id, fencing_token=token)
        )
        return token + 1

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


def effect(run_id: str, token: int, seq: int, item_id: str, *, seconds: float = 0.0) -> Apply:
    """A command that adds a line to the file /etc/paused/ITEM."""
    script = f"mkdir -p /etc/paused; echo ran >> /etc/paused/{item_id}; sleep {seconds}"
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
        assert child.returncode is None, "it ended before it came to its fault point"
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    await eventually(stopped, timeout=30)
