"""A real SSH server in this process, whose programs are real processes of this machine."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from anneal_contracts.facts import TargetAccess
from anneal_skillkit import effects


@dataclass(kw_only=True)
class SshServer:
    """The server, and the ways to disturb it."""

    access: TargetAccess
    acceptor: asyncssh.SSHAcceptor
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)

    def cut(self) -> None:
        """Drops every connection, as a crash of sshd would; programs that were started go on."""
        for connection in self.connections:
            connection.abort()
        self.connections.clear()


_RUNNING: dict[asyncio.Task[None], asyncio.subprocess.Process] = {}


async def _serve(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    child = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        process.command or "",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    task = asyncio.current_task()
    assert task is not None
    _RUNNING[task] = child
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    feeding = asyncio.create_task(_copy(process.stdin, child.stdin))
    await asyncio.gather(_copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr))
    code = await child.wait()
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    child.stdin.close()
    del _RUNNING[task]
    with contextlib.suppress(asyncssh.Error, OSError):
        process.exit(code if code >= 0 else 128 - code)


async def _copy(source: Any, sink: Any) -> None:
    """Copies until the end of the source, whichever side breaks."""
    with contextlib.suppress(asyncssh.Error, OSError):
        while data := await source.read(1 << 15):
            sink.write(data)
            await sink.drain()
        if isinstance(sink, asyncio.StreamWriter):
            sink.close()


@pytest.fixture
async def ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SshServer]:
    monkeypatch.setattr(effects, "EFFECTS_ROOT", str(tmp_path / "effects"))
    monkeypatch.setattr(effects, "STATE_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(effects, "SHELLS_ROOT", str(tmp_path / "shells"))
    # No unit of a test ever reaches the systemd of the machine that runs it.
    monkeypatch.setattr(effects, "UNITS_ROOT", str(tmp_path / "units"))
    key, host_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    key_path = tmp_path / "key"
    key.write_private_key(key_path)
    key_path.chmod(0o600)
    held: list[asyncssh.SSHServerConnection] = []

    class Door(asyncssh.SSHServer):
        def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
            held.append(connection)

    acceptor = await asyncssh.create_server(
        Door,
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(key.export_public_key().decode()),
        process_factory=_serve,
        encoding=None,
    )
    access = TargetAccess(
        name="box",
        driver="ssh",
        host="127.0.0.1",
        port=acceptor.get_port(),
        user="root",
        key_path=str(key_path),
        host_key=host_key.export_public_key().decode(),
        can_snapshot=False,
    )
    yield SshServer(access=access, acceptor=acceptor, connections=held)
    for connection in held:
        connection.abort()
    acceptor.close()
    await acceptor.wait_closed()
    for task, child in list(_RUNNING.items()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await asyncio.wait([task], timeout=5)
