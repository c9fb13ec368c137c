"""The checkpoint service as a real process, on a machine of the lab that this suite alone uses."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal_lab import Lab

from tests.support.processes import ServiceProcess, service_process

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub

    Stub: TypeAlias = CheckpointServiceAsyncStub
else:
    Stub = CheckpointServiceStub


@dataclass
class Machine:
    """A running machine and a way to run commands on it as root."""

    lab: Lab
    name: str

    async def sh(self, script: str) -> int:
        return await asyncio.to_thread(self.lab.run_ssh, self.name, ["sudo", "sh", "-c", f"'{script}'"])

    async def tree_hash(self) -> str:
        return await asyncio.to_thread(self.lab.tree_hash, self.name)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine of the pristine image, gone afterwards."""
    lab = Lab()
    assert lab.image_id(), "the lab has no image; run: make lab-build"
    name = f"ck{secrets.token_hex(3)}"
    lab.clone("", name)
    try:
        yield Machine(lab, name)
    finally:
        lab.delete(name)


Process = Callable[..., AbstractAsyncContextManager[tuple[ServiceProcess, Stub]]]


@pytest.fixture
def process(postgres_dsn: str, auth_token: str, machine: Machine) -> Process:
    """Starts the service as a process; faults as for ANNEAL_FAULTS."""
    # Machines live below the lab's own home, so that the built image is used.
    home = os.environ.get("ANNEAL_HOME") or str(Path.home() / ".local/share/anneal")

    @asynccontextmanager
    async def start(faults: str = "") -> AsyncIterator[tuple[ServiceProcess, Stub]]:
        settings = {"POSTGRES_DSN": postgres_dsn, "HOME": home, "FAULTS": faults}
        async with service_process("checkpoint", auth_token, settings) as service:
            yield service, CheckpointServiceStub(service.wire)

    return start
