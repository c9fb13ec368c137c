"""The target's own check: whoever was overtaken starts nothing, one effect is at work at a time."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from anneal_runtime.testing import eventually
from anneal_skillkit import effects
from anneal_skillkit.effects import (
    Fenced,
    NeverStarted,
    TargetBusy,
    begin_effect,
    read_markers,
    run_effect,
    shell_of,
)
from anneal_skillkit.interfaces import Permit, TargetSession
from anneal_skillkit.ssh import connect

from tests.support.permits import permit_for

from .conftest import SshServer

OLD, NEW = "effect-of-the-old-one", "effect-of-the-new-one"


async def refused(session: TargetSession, permit: Permit, tmp_path: Path, words: str) -> None:
    """The permit starts nothing, and leaves nothing behind."""
    with pytest.raises(Fenced, match=words):
        await run_effect(session, permit, f"touch {tmp_path}/ran".encode(), timeout_s=5)
    assert not (tmp_path / "ran").exists()
    assert await read_markers(session, permit.key) == NeverStarted()
    assert all(p.name != permit.key and not p.name.startswith(".new") for p in (tmp_path / "effects").iterdir())


async def test_an_earlier_command_of_the_same_lease_is_refused_after_a_later_one(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    old = await permit_for(session, OLD, token=3, command_seq=7)
    await run_effect(session, await permit_for(session, NEW, token=3, command_seq=9), b"true", timeout_s=5)
    await refused(session, old, tmp_path, "command 7 under token 3 comes after command 9 under token 3")
    await session.close()


async def test_a_lower_token_is_refused_whatever_its_own_log_says(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    old = await permit_for(session, OLD, token=3, command_seq=400)
    await run_effect(session, await permit_for(session, NEW, token=4, command_seq=2), b"true", timeout_s=5)
    await refused(session, old, tmp_path, "under token 4")
    await session.close()


async def test_another_ledgers_numbers_mean_nothing_here(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    await run_effect(session, await permit_for(session, NEW, token=900, command_seq=900), b"true", timeout_s=5)
    fresh = replace(await permit_for(session, OLD, token=1, command_seq=1), ledger="made-anew")
    assert (await run_effect(session, fresh, b"exit 3", timeout_s=5)).exit_code == 3
    await session.close()


async def test_nothing_starts_after_the_lease_has_run_out_even_if_nobody_else_came(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    short = await permit_for(session, OLD, lease_s=0.05)
    (tmp_path / "effects").mkdir()
    await asyncio.sleep(0.1)
    await refused(session, short, tmp_path, "lease .* has run out")
    await session.close()


async def test_nothing_starts_by_leave_from_before_a_boot(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    old = replace(await permit_for(session, OLD), boot="another-boot")
    (tmp_path / "effects").mkdir()
    await refused(session, old, tmp_path, "booted since")
    with pytest.raises(Fenced):
        await begin_effect(session, old, timeout_s=5)
    await session.close()


async def test_an_undo_that_finds_nothing_to_take_back_raises_the_fence_too(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    old = await permit_for(session, OLD, command_seq=7)
    nothing = await permit_for(session, NEW, command_seq=9, undoes="never-begun-effect")
    assert (await run_effect(session, nothing, f"touch {tmp_path}/ran".encode(), timeout_s=5)).exit_code == 0
    await refused(session, old, tmp_path, "comes after command 9")
    await session.close()


async def test_an_effect_waits_for_the_one_that_is_at_work(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    log = tmp_path / "log"
    first = f"echo first begins >>{log}; sleep 0.7; echo first ends >>{log}".encode()
    running = asyncio.create_task(run_effect(session, await permit_for(session, OLD), first, timeout_s=5))
    await eventually(log.exists)
    await run_effect(
        session, await permit_for(session, NEW, command_seq=2), f"echo second >>{log}".encode(), timeout_s=5
    )
    assert log.read_text().splitlines() == ["first begins", "first ends", "second"]
    await running
    await session.close()


async def test_an_effect_does_not_wait_for_ever(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "BUSY_S", 1)
    session = await connect(ssh_server.access)
    script = f"touch {tmp_path}/begun; sleep 3".encode()
    running = asyncio.create_task(run_effect(session, await permit_for(session, OLD), script, timeout_s=5))
    await eventually((tmp_path / "begun").exists)
    with pytest.raises(TargetBusy) as busy:
        await run_effect(session, await permit_for(session, NEW, command_seq=2), b"true", timeout_s=5)
    assert busy.value.retryable
    assert await read_markers(session, NEW) == NeverStarted()
    await running
    await session.close()


async def test_a_daemon_of_an_ended_effect_keeps_nobody_waiting(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    await run_effect(session, await permit_for(session, OLD), b"setsid sleep 4 & true", timeout_s=5)
    began = asyncio.get_running_loop().time()
    await run_effect(session, await permit_for(session, NEW, command_seq=2), b"true", timeout_s=5)
    assert asyncio.get_running_loop().time() - began < 2
    await session.close()


async def test_what_an_older_effect_runs_from_outside_loses_its_shell_to_a_newer_one(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    outside = await permit_for(session, OLD)
    assert await begin_effect(session, outside, timeout_s=5) is None
    step = [shell_of(outside), "-c", "echo at work"]
    assert (await session.run(step)).stdout == b"at work\n"
    await run_effect(session, await permit_for(session, NEW, command_seq=2), b"true", timeout_s=5)
    assert (await session.run(step)).exit_code != 0
    await session.close()
