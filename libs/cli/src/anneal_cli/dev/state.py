"""One `anneal dev` per data folder: the lock, what the running one says of itself, how one cleans up after a dead one.

The kernel's lock on dev.lock decides who runs; dev.json (pid, start time, ports, children) is what others are told.
A process is known by pid and start time together: a pid alone may have been used again.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import psutil
from anneal_runtime import private

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home


@dataclass(frozen=True, kw_only=True)
class ChildInfo:
    """A child process as dev.json names it. started is Unix time as the kernel tells it."""

    name: str
    pid: int
    started: float
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class DevState:
    """Content of dev.json. phase: starting, ready or stopping."""

    pid: int
    started: float
    port_base: int
    phase: str
    ports: dict[str, int]
    children: tuple[ChildInfo, ...] = ()
    model: str = ""

    def to_json(self) -> str:
        data = {**self.__dict__, "children": [child.__dict__ for child in self.children]}
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "DevState":
        data: dict[str, Any] = json.loads(text)
        children = tuple(ChildInfo(**child) for child in data.pop("children"))
        return cls(children=children, **data)


def start_time(pid: int) -> float | None:
    """When the process was started; None where there is no such process (or only its corpse)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def is_alive(pid: int, started: float) -> bool:
    """Is the very process that started then still there?"""
    found = start_time(pid)
    return found is not None and abs(found - started) < 1.0


def session_members(leader: int) -> list[int]:
    """Who is in the session that the process began, itself included.

    A helper with a session of its own (a machine of the lab that a restore has booted) was meant to go on.
    """
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def read_state(home: Home) -> DevState | None:
    """The state of the running `anneal dev`; None where none runs (a dead one's file counts as none)."""
    state = _stored(home)
    return state if state and is_alive(state.pid, state.started) else None


def _stored(home: Home) -> DevState | None:
    try:
        return DevState.from_json(home.state_file.read_text())
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        # A file cut short by a full disk or written by another version says nothing.
        return None


def write_state(home: Home, state: DevState) -> None:
    """Replaces dev.json as a whole."""
    part = home.state_file.with_suffix(".part")
    with open(part, "w", opener=private.opener) as file:
        file.write(state.to_json())
    part.replace(home.state_file)


class Lock:
    """Holds dev.lock for the life of `anneal dev`. The kernel lets go of it however we die."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._fd = -1
        # Processes of a killed predecessor that had to be ended.
        self.recovered: tuple[str, ...] = ()

    def __enter__(self) -> "Lock":
        self._home.make()
        self._fd = os.open(self._home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 64, 0).decode(errors="replace").split() or ["?"]
            os.close(self._fd)
            raise CliError(
                message=f"already running, pid {pid[0]} (data folder {self._home.root})",
                code=ExitCode.CONFLICT,
                hint="stop it with: anneal dev stop",
            ) from None
        self.recovered = self._end_leftovers()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {start_time(os.getpid())}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._home.state_file.unlink(missing_ok=True)
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def _end_leftovers(self) -> tuple[str, ...]:
        """Ends what outlived a predecessor that was killed: its children, and the helpers in their sessions."""
        stored = _stored(self._home)
        left = {child.name: _leftovers(child) for child in (stored.children if stored else ())}
        pids = [pid for members in left.values() for pid in members]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while any(start_time(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        return tuple(name for name, members in left.items() if members)


def _leftovers(child: ChildInfo) -> list[int]:
    """The living members of the child's session; none where its pid has become somebody else's."""
    taken_over = start_time(child.pid) is not None and not is_alive(child.pid, child.started)
    members = [] if taken_over else session_members(child.pid)
    alone = [child.pid] if is_alive(child.pid, child.started) else []
    return [pid for pid in {*members, *alone} if start_time(pid) is not None]
