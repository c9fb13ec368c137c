"""Child processes that never outlive us, and folders that only one process uses."""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from anneal_runtime.errors import FailedPrecondition

_POLL_S = 0.005


def die_with_parent(argv: Sequence[str], sig: str = "TERM", *, user: str = "") -> list[str]:
    """argv, wrapped so that the kernel sends sig when the thread that starts it dies, kill -9 included.

    Start such a child from the main thread: a helper thread that ends would take it along. user: run as that user.
    """
    drop = ["--reuid", user, "--regid", user, "--clear-groups"] if user else []
    return ["setpriv", *drop, "--pdeathsig", sig, "--", *argv]


class FolderLock:
    """An advisory lock on a folder; the kernel lets go of it when the process dies, so it is never stale."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._fd = -1

    def take(self) -> None:
        """Raises FailedPrecondition when another process has it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 20).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise FailedPrecondition(f"{self._path.parent} is in use by process {holder}", field="dir") from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def require_free_port(port: int, what: str) -> None:
    """Raises FailedPrecondition when something on this machine listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as e:
            raise FailedPrecondition(
                f"port {port} for {what} is taken: stop what uses it (ss -ltnp 'sport = :{port}') or choose another",
                field="port",
            ) from e


def free_port() -> int:
    """A port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def signal_pid(pid: int, sig: signal.Signals) -> None:
    """Sends a signal to a process that may have gone already."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        return


# Steps that wait are generators, written once for both worlds: they yield while there is nothing to do but wait.


def wait_for(condition: Callable[[], bool], timeout_s: float) -> Iterator[None]:
    """Yields until condition holds. Raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        yield


def drive(steps: Iterator[None]) -> None:
    """Runs steps to their end, sleeping in between."""
    for _ in steps:
        time.sleep(_POLL_S)


async def adrive(steps: Iterator[None]) -> None:
    """Runs steps to their end; other tasks run in between."""
    for _ in steps:
        await asyncio.sleep(_POLL_S)


def stop_child(child: "subprocess.Popen[bytes]", signals: Sequence[tuple[signal.Signals, float]]) -> Iterator[None]:
    """Sends each signal and waits its seconds until the child has ended; SIGKILL comes last of all."""
    for sig, seconds in signals:
        if child.poll() is not None:
            return
        child.send_signal(sig)
        try:
            yield from wait_for(lambda: child.poll() is not None, seconds)
        except TimeoutError:
            continue
    if child.poll() is None:
        child.kill()
        child.wait()
