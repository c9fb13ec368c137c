"""A machine of the lab that this folder alone uses, reached as a host of somebody's: plain SSH, no snapshots."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from anneal_contracts.facts import TargetAccess
from anneal_lab import Lab
from anneal_skillkit.ssh import SshSession, connect


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
