"""Effects: at most once under a key, and what happened can be read from the markers whatever broke."""

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest
from anneal_runtime.errors import InvalidArgument, TargetUnreachable
from anneal_runtime.testing import eventually
from anneal_skillkit import effects
from anneal_skillkit.effects import (
    EffectInterrupted,
    Finished,
    NeverStarted,
    Started,
    begin_effect,
    end_effect,
    read_markers,
    run_effect,
)
from anneal_skillkit.interfaces import ExecResult
from anneal_skillkit.ssh import connect

from tests.support.permits import permit_for

from .conftest import SshServer

KEY = "run-1_item_attempt1"


async def test_a_script_runs_as_sent_and_its_end_is_recorded(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    script = (
        b'printf \'%s\' "$HOME:$(umask):$(pwd)"; echo e >&2; sha256sum <"$0" >' + f"{tmp_path}/sum; exit 9".encode()
    )
    done = await run_effect(session, await permit_for(session, KEY), script, timeout_s=10)
    assert (done.exit_code, done.stdout, done.timed_out) == (9, b"/root:0022:/e\n", False)
    assert (tmp_path / "sum").read_text().split()[0] == hashlib.sha256(script).hexdigest()
    assert await read_markers(session, KEY) == Finished(
        exit_code=9, timed_out=False, output=b"/root:0022:/e\n", truncated=False
    )
    folder = tmp_path / "effects" / KEY
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    assert [p.name for p in folder.parent.iterdir()] == [KEY]
    await session.close()


async def test_the_same_key_never_runs_twice(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    script = f"echo x >>{tmp_path}/count; sleep 0.2; echo done".encode()
    permit = await permit_for(session, KEY)
    results = await asyncio.gather(*(run_effect(session, permit, script, timeout_s=10) for _ in range(3)))
    results.append(await run_effect(session, permit, script, timeout_s=10))
    assert {(r.exit_code, r.stdout) for r in results} == {(0, b"done\n")}
    assert (tmp_path / "count").read_text() == "x\n"
    await session.close()


async def test_a_script_outlives_its_connection_and_is_found_again(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    script = f"echo x >>{tmp_path}/count; sleep 0.8; echo survived".encode()
    running = asyncio.create_task(run_effect(session, await permit_for(session, KEY), script, timeout_s=10))
    await eventually(lambda: (tmp_path / "count").exists())
    ssh_server.cut()
    done = await running
    assert (done.exit_code, done.stdout) == (0, b"survived\n")
    assert (tmp_path / "count").read_text() == "x\n"


async def test_a_target_that_stays_away_is_unreachable_after_a_bounded_time(
    ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "REATTACH_S", 0.3)
    session = await connect(ssh_server.access)
    running = asyncio.create_task(run_effect(session, await permit_for(session, KEY), b"sleep 1", timeout_s=30))
    await asyncio.sleep(0.3)
    ssh_server.acceptor.close()
    ssh_server.cut()
    with pytest.raises(TargetUnreachable):
        await running


async def test_a_script_that_takes_too_long_is_ended_with_its_children(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    script = f"echo before; (sleep 2; touch {tmp_path}/late) & wait".encode()
    done = await run_effect(session, await permit_for(session, KEY), script, timeout_s=1)
    assert (done.timed_out, done.exit_code, done.stdout) == (True, 124, b"before\n")
    await asyncio.sleep(1.3)
    assert not (tmp_path / "late").exists()
    await session.close()


async def test_an_exit_code_of_124_is_no_timeout(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    done = await run_effect(session, await permit_for(session, KEY), b"exit 124", timeout_s=5)
    assert (done.exit_code, done.timed_out) == (124, False)
    await session.close()


async def test_a_daemon_left_behind_does_not_hold_the_result(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    began = asyncio.get_running_loop().time()
    done = await run_effect(session, await permit_for(session, KEY), b"setsid sleep 4 & echo started", timeout_s=10)
    assert done.stdout == b"started\n"
    assert asyncio.get_running_loop().time() - began < 2
    await session.close()


async def test_what_a_script_says_in_many_words_is_whole_up_to_the_bound(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    script = f"for n in 1 2 3; do echo $n; sleep 0.05; done; head -c {effects.OUTPUT_LIMIT - 6} /dev/zero".encode()
    done = await run_effect(session, await permit_for(session, KEY), script, timeout_s=10)
    assert not done.truncated
    assert done.stdout == b"1\n2\n3\n" + bytes(effects.OUTPUT_LIMIT - 6)
    more = await run_effect(session, await permit_for(session, KEY + "b"), script + b"; echo 4", timeout_s=10)
    assert more.truncated
    await session.close()


async def test_endless_output_is_bounded_on_the_target_too(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    done = await run_effect(
        session, await permit_for(session, KEY), b"echo first; yes | head -c 3000000; echo last", timeout_s=10
    )
    assert done.truncated
    assert done.stdout.startswith(b"first")
    assert done.stdout.endswith(b"last\n")
    kept = sum(path.stat().st_size for path in (tmp_path / "effects" / KEY).iterdir())
    assert kept < 3 * effects.OUTPUT_LIMIT
    await session.close()


async def test_an_effect_cut_off_is_neither_finished_nor_repeated(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    script = f"echo $PPID >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 5".encode()
    running = asyncio.create_task(run_effect(session, await permit_for(session, KEY), script, timeout_s=10))
    await eventually(lambda: (tmp_path / "pid").exists())
    assert await read_markers(session, KEY) == Started(running=True)
    timeout_pid = int((tmp_path / "pid").read_text())
    os.killpg(os.getsid(timeout_pid), signal.SIGKILL)
    os.killpg(os.getpgid(timeout_pid), signal.SIGKILL)
    with pytest.raises(EffectInterrupted):
        await running
    assert await read_markers(session, KEY) == Started(running=False)
    with pytest.raises(EffectInterrupted):
        await run_effect(session, await permit_for(session, KEY), script, timeout_s=10)
    await session.close()


async def test_markers_that_a_power_cut_left_empty_count_as_interrupted(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    folder = tmp_path / "effects" / KEY
    folder.mkdir(parents=True)
    for left in ([], ["started"], ["started", "finished"]):
        for name in left:
            (folder / name).touch()
        assert await read_markers(session, KEY) == Started(running=False)
        with pytest.raises(EffectInterrupted):
            await run_effect(session, await permit_for(session, KEY), f"touch {tmp_path}/ran".encode(), timeout_s=5)
    assert not (tmp_path / "ran").exists()
    await session.close()


async def test_a_finished_effect_leaves_its_script_its_output_and_its_end(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    session = await connect(ssh_server.access)
    await run_effect(session, await permit_for(session, KEY), b"echo words", timeout_s=5)
    folder = tmp_path / "effects" / KEY
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "script": b"echo words",
        "output": b"words\n",
        "finished": b"0 0\n",
    }
    await session.close()


async def test_an_unknown_key_never_started_and_a_bad_key_is_refused(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    assert await read_markers(session, KEY) == NeverStarted()
    for key in ("../../etc/x1", "short", "a b c d e f", ""):
        with pytest.raises(InvalidArgument):
            await run_effect(session, await permit_for(session, key), b"true", timeout_s=1)
    await session.close()


async def test_an_effect_driven_from_here_leaves_the_same_markers(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    assert await begin_effect(session, await permit_for(session, KEY), timeout_s=10) is None
    assert await read_markers(session, KEY) == Started(running=False)
    assert await begin_effect(session, await permit_for(session, KEY), timeout_s=10) == Started(running=False)
    await end_effect(session, await permit_for(session, KEY), ExecResult(exit_code=2, stdout=b"words", stderr=b""))
    ended = Finished(exit_code=2, timed_out=False, output=b"words", truncated=False)
    assert await read_markers(session, KEY) == ended
    assert await begin_effect(session, await permit_for(session, KEY), timeout_s=10) == ended
    await session.close()
