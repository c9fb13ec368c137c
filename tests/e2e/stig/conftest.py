"""A machine of the lab for this folder's tests, and the skill as the services load it."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from anneal_contracts.facts import TargetAccess
from anneal_lab import Lab
from anneal_skillkit.ansible_run import close_helper
from anneal_skillkit.interfaces import Context
from anneal_skillkit.loader import Skill, load_skill
from anneal_skillkit.ssh import SshSession, connect

SKILL = Path(__file__).parents[3] / "skills" / "stig-rhel9"


@dataclass(frozen=True, kw_only=True)
class Box:
    """A running machine, its skill, and a context with an open session."""

    skill: Skill
    ctx: Context
    session: SshSession

    async def sh(self, script: str) -> str:
        """A script on the machine as root, beside the skill; it must succeed."""
        done = await self.session.run(["bash", "-c", script], timeout_s=120)
        assert done.exit_code == 0, done.stderr.decode()
        return done.stdout.decode()


@pytest.fixture(scope="module")
def access() -> Iterator[TargetAccess]:
    lab, name = Lab(), f"st{os.getpid() % 100000}"
    lab.build()
    reach = lab.clone("", name)
    try:
        yield TargetAccess(
            name=name,
            driver="nspawn",
            host=reach.host,
            port=reach.port,
            user=reach.user,
            key_path=str(reach.key_path),
            host_key=reach.host_key,
            can_snapshot=True,
        )
    finally:
        lab.delete(name)


@pytest_asyncio.fixture
async def box(access: TargetAccess, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Box]:
    cache = tmp_path_factory.getbasetemp() / "skill-cache"
    skill = load_skill(SKILL, cache=cache)
    session = await connect(access)
    ctx = Context(run_id="e2e", profile="stig", tailoring=b"", session=session, cache=cache)
    yield Box(skill=skill, ctx=ctx, session=session)
    await session.close()
    await close_helper()
