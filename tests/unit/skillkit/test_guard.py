"""The dead-man timer on the target: it takes back once, also beside a script that hangs, and never when all is well.

No systemd here: what its timer would start is started by hand. The timer itself is tested on a real machine.
"""

import asyncio
from pathlib import Path

import pytest
from anneal_runtime.errors import FailedPrecondition
from anneal_runtime.testing import eventually
from anneal_skillkit import effects
from anneal_skillkit.effects import (
    EffectTakenBack,
    Finished,
    NeverStarted,
    TakenBack,
    disarm,
    read_markers,
    run_effect,
)
from anneal_skillkit.interfaces import ExecResult, Guard, TargetSession
from anneal_skillkit.ssh import connect

from tests.support.permits import permit_for

from .conftest import SshServer

KEY, UNDO_KEY = "run-1_item_attempt1", "run-1_item_attempt1_undo"


def guard(undo: str, *, required: bool = False) -> Guard:
    return Guard(undo=undo.encode(), after_s=5, required=required)


async def fire(session: TargetSession) -> ExecResult:
    """What systemd's timer starts."""
    words = [f"state={effects.STATE_ROOT}", f"units={effects.UNITS_ROOT}", "undo_s=5", "limit=4096"]
    wrapper = f"{effects.EFFECTS_ROOT}/{KEY}/wrapper"
    return await session.run(["bash", wrapper, "deadman", KEY, effects.EFFECTS_ROOT, *words])


async def test_the_timer_takes_the_change_back_once_and_whoever_reads_is_told(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    undo = guard(f"echo undone >>{tmp_path}/undone; echo words")
    await run_effect(session, await permit_for(session, KEY, guard=undo), f"touch {tmp_path}/x".encode(), timeout_s=5)
    assert (await fire(session)).exit_code == 0
    await fire(session)
    assert (tmp_path / "undone").read_text() == "undone\n"
    assert await read_markers(session, KEY) == TakenBack(exit_code=0, output=b"words\n")
    with pytest.raises(EffectTakenBack) as told:
        await run_effect(session, await permit_for(session, KEY, guard=undo), b"true", timeout_s=5)
    assert told.value.whole
    assert await disarm(session, KEY) == TakenBack(exit_code=0, output=b"words\n")
    await session.close()


async def test_a_script_is_sent_without_its_undo_and_the_undo_without_its_script(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    script = b"echo the script; exit 4"
    done = await run_effect(session, await permit_for(session, KEY, guard=guard("echo the undo")), script, timeout_s=5)
    assert (done.exit_code, done.stdout) == (4, b"the script\n")
    folder = tmp_path / "effects" / KEY
    assert (folder / "script").read_bytes() == script
    assert (folder / "undo").read_bytes() == b"echo the undo"
    await session.close()


async def test_after_the_word_that_all_is_well_the_timer_does_nothing(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    undo = guard(f"touch {tmp_path}/undone")
    await run_effect(session, await permit_for(session, KEY, guard=undo), b"exit 2", timeout_s=5)
    assert await disarm(session, KEY) is None
    await fire(session)
    assert not (tmp_path / "undone").exists()
    assert await read_markers(session, KEY) == Finished(exit_code=2, timed_out=False, output=b"", truncated=False)
    await session.close()


async def test_a_script_that_hangs_is_ended_before_it_is_taken_back(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    script = f"(sleep 2; touch {tmp_path}/late) & touch {tmp_path}/begun; sleep 20"
    permit = await permit_for(session, KEY, guard=guard(f"touch {tmp_path}/undone"))
    running = asyncio.create_task(run_effect(session, permit, script.encode(), timeout_s=30))
    await eventually((tmp_path / "begun").exists)
    await fire(session)
    with pytest.raises(EffectTakenBack):
        await running
    assert (tmp_path / "undone").exists()
    await asyncio.sleep(2.1)
    assert not (tmp_path / "late").exists()
    await session.close()


async def test_an_undo_script_that_failed_is_told_as_such(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    permit = await permit_for(session, KEY, guard=guard("exit 7"))
    await run_effect(session, permit, b"true", timeout_s=5)
    await fire(session)
    with pytest.raises(EffectTakenBack, match="ended with 7") as told:
        await run_effect(session, permit, b"true", timeout_s=5)
    assert not told.value.whole
    await session.close()


@pytest.mark.parametrize("exit_code", [0, 7])
async def test_what_the_timer_took_back_is_not_taken_back_again(
    ssh_server: SshServer, tmp_path: Path, exit_code: int
) -> None:
    session = await connect(ssh_server.access)
    undo = f"echo undone >>{tmp_path}/undone; exit {exit_code}"
    await run_effect(session, await permit_for(session, KEY, guard=guard(undo)), b"true", timeout_s=5)
    await fire(session)
    again = await permit_for(session, UNDO_KEY, command_seq=2, undoes=KEY)
    assert (await run_effect(session, again, undo.encode(), timeout_s=5)).exit_code == exit_code
    assert (tmp_path / "undone").read_text() == "undone\n"
    assert await read_markers(session, UNDO_KEY) == NeverStarted()
    await session.close()


async def test_an_undo_that_was_asked_for_comes_before_the_timer(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    undo = f"echo undone >>{tmp_path}/undone"
    await run_effect(session, await permit_for(session, KEY, guard=guard(undo)), b"true", timeout_s=5)
    permit = await permit_for(session, UNDO_KEY, command_seq=2, undoes=KEY)
    assert (await run_effect(session, permit, undo.encode(), timeout_s=5)).exit_code == 0
    await fire(session)
    assert (tmp_path / "undone").read_text() == "undone\n"
    await session.close()


async def test_where_no_timer_can_be_armed_only_what_does_not_need_it_starts(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    script = f"echo ran >>{tmp_path}/ran".encode()
    needed = await permit_for(session, KEY, guard=guard("true", required=True))
    with pytest.raises(FailedPrecondition, match="no dead-man timer"):
        await run_effect(session, needed, script, timeout_s=5)
    assert await read_markers(session, KEY) == NeverStarted()
    await run_effect(session, await permit_for(session, KEY, guard=guard("true")), script, timeout_s=5)
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert list((tmp_path / "units").rglob("*.timer")) == []
    await session.close()
