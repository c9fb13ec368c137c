"""One child process: it cannot outlive us, its output becomes log entries, and it is ended without leftovers."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anneal_cli.dev.logs import parse, short
from anneal_cli.dev.state import session_members

# The kernel kills the child when we die, however we die; the shell closes the gap before it was told to.
_BOUND = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", 'test "$PPID" = "$0" || exit 1; exec "$@"')
TAIL_LINES = 15
_MAX_LINE = 1 << 20
# How a child says that starting it again cannot help: settings are wrong (78), the model's weights are missing (69).
_HOPELESS = frozenset({69, 78})

Entry = dict[str, Any]


class Child:
    """A running child. emit gets every line of its output as a log entry."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, emit: Callable[[Entry], None]) -> None:
        self.name = name
        self.pid = process.pid
        # Set by wait(): starting it again cannot help.
        self.hopeless = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = process
        self._emit = emit
        self._reader = asyncio.create_task(self._read(), name=f"log of {name}")

    @classmethod
    async def spawn(
        cls, name: str, command: Sequence[str], *, env: Mapping[str, str], emit: Callable[[Entry], None]
    ) -> "Child":
        """Starts command in a session of its own: Ctrl-C reaches us alone, and we end the others in order."""
        process = await asyncio.create_subprocess_exec(
            *_BOUND,
            str(os.getpid()),
            *command,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(name, process, emit)

    async def _read(self) -> None:
        """Reads in pieces, not by line: one endless line must not end the reading."""
        stream = self._process.stdout
        assert stream is not None
        pending = b""
        while piece := await stream.read(1 << 16):
            *lines, pending = (pending + piece).split(b"\n")
            if len(pending) > _MAX_LINE:
                lines, pending = [*lines, pending], b""
            for line in lines:
                self._take(line)
        if pending:
            self._take(pending)

    def _take(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            entry = parse(line, self.name)
            self.tail.append(short(entry))
            self._emit(entry)

    async def wait(self) -> str:
        """Waits for its end. Returns how it ended, in words."""
        code = await self._process.wait()
        # What it said last explains its end; a grandchild that holds the pipe open must not hold us up.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), 1.0)
        self.hopeless = code in _HOPELESS
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then after grace_s SIGKILL; what it left in its session is ended as well."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        for pid in session_members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
