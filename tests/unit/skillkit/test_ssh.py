"""Sessions: arguments arrive as they are, and every way to fail has its own error."""

import asyncio
import os
from pathlib import Path

import asyncssh
import pytest
from anneal_runtime.errors import FailedPrecondition, HostKeyChanged, InvalidArgument, NotFound, TargetUnreachable
from anneal_runtime.testing import eventually
from anneal_skillkit.ssh import LoginRefused, PrivilegeLost, SessionPool, connect

from .conftest import SshServer

ODD = ["", "a b", "$HOME", "`id`", "x;y", "'", '"', "\\", "*", "-n", "new\nline", "ü"]


async def test_arguments_arrive_as_they_are(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    done = await session.run(["printf", "%s\\0", *ODD])
    assert done.stdout.decode().split("\0")[:-1] == ODD
    await session.close()


async def test_exit_code_input_and_both_outputs_come_through(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    done = await session.run(["sh", "-c", "cat; echo no >&2; exit 7"], stdin=b"\x00\xff" * 50_000)
    assert (done.exit_code, done.stderr, done.timed_out, done.truncated) == (7, b"no\n", False, False)
    assert done.stdout == b"\x00\xff" * 50_000
    await session.close()


async def test_a_program_that_takes_too_long_is_killed_on_the_far_end(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    done = await session.run(["sh", "-c", f"sleep 0.6; touch {tmp_path}/late"], timeout_s=0.2)
    assert done.timed_out
    await asyncio.sleep(0.6)
    assert not (tmp_path / "late").exists()
    await session.close()


async def test_output_is_cut_to_its_limit_with_head_and_tail_kept(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    done = await session.run(["sh", "-c", "echo first; yes | head -c 200000; echo last"], limit=1000)
    assert done.truncated
    assert len(done.stdout) < 1100
    assert done.stdout.startswith(b"first")
    assert done.stdout.endswith(b"last\n")
    await session.close()


async def test_another_host_key_than_the_recorded_one_is_refused(ssh_server: SshServer) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with pytest.raises(HostKeyChanged):
        await connect(ssh_server.access.model_copy(update={"host_key": other}))
    rsa = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    with pytest.raises(HostKeyChanged):
        await connect(ssh_server.access.model_copy(update={"host_key": rsa}))


async def test_a_refused_login_is_no_reason_to_try_again(ssh_server: SshServer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(wrong)
    with pytest.raises(LoginRefused) as caught:
        await connect(ssh_server.access.model_copy(update={"key_path": str(wrong)}))
    assert not caught.value.retryable


async def test_bad_keys_are_named_by_their_field(ssh_server: SshServer) -> None:
    for update in ({"host_key": ""}, {"host_key": "nonsense"}, {"key_path": "/no/such/key"}):
        with pytest.raises(InvalidArgument) as caught:
            await connect(ssh_server.access.model_copy(update=update))
        assert caught.value.field == next(iter(update))


async def test_a_target_that_does_not_answer_may_be_tried_again(ssh_server: SshServer) -> None:
    ssh_server.acceptor.close()
    await ssh_server.acceptor.wait_closed()
    with pytest.raises(TargetUnreachable) as caught:
        await connect(ssh_server.access)
    assert caught.value.retryable


async def test_a_lost_connection_is_told_apart_from_a_failed_program(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    running = asyncio.create_task(session.run(["sleep", "3"]))
    await asyncio.sleep(0.2)
    ssh_server.cut()
    with pytest.raises(TargetUnreachable):
        await running
    with pytest.raises(TargetUnreachable):
        await session.run(["true"])


async def test_files_are_written_whole_with_their_mode_and_read_back(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    path = tmp_path / "it's a file"
    await session.write(str(path), b"\x00new", mode=0o640)
    assert await session.read(str(path)) == b"\x00new"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(NotFound):
        await session.read(str(tmp_path / "none"))
    with pytest.raises(FailedPrecondition):
        await session.write(str(tmp_path / "no folder" / "x"), b"")
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith("it")) == ["it's a file"]
    await session.close()


async def test_the_pool_keeps_a_session_and_replaces_a_lost_one(ssh_server: SshServer) -> None:
    pool = SessionPool()
    first = await pool.get(ssh_server.access)
    assert await pool.get(ssh_server.access) is first
    ssh_server.cut()
    await eventually(lambda: not first.alive)
    second = await pool.get(ssh_server.access)
    assert second is not first
    assert (await second.run(["echo", "hi"])).stdout == b"hi\n"
    await pool.close()
    assert not second.alive


async def test_sudo_that_asks_for_a_password_has_an_error_of_its_own(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "sudo"
    allowed = 'if [ -e "$0.open" ]; then shift 2; exec "$@"; fi'
    fake.write_text(f"#!/bin/sh\n{allowed}\necho 'sudo: a password is required' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    session = await connect(ssh_server.access.model_copy(update={"user": "operator"}))
    with pytest.raises(PrivilegeLost) as caught:
        await session.run(["id"])
    assert not caught.value.retryable
    assert (await session.run(["echo", "me"], sudo=False)).stdout == b"me\n"
    (programs / "sudo.open").touch()
    assert (await session.run(["sh", "-c", "echo sudo: odd >&2; exit 3"])).exit_code == 3
    await session.close()
