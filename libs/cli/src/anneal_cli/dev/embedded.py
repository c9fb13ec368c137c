"""Embedded Postgres and NATS as parts of the tree: their end is noticed, their log goes into the combined one."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from anneal_cli.dev.children import TAIL_LINES, Entry
from anneal_cli.dev.logs import parse, short

_POLL_S = 0.1


class EmbeddedServer(Protocol):
    """What anneal_runtime.embedded's servers have in common."""

    @property
    def pid(self) -> int: ...
    @property
    def log_path(self) -> Path: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class ServerPart:
    """A started embedded server. Its stop is its own: it knows how to end without losing anything."""

    hopeless = False

    def __init__(self, name: str, server: EmbeddedServer, emit: Callable[[Entry], None], offset: int) -> None:
        self.name = name
        self.pid = server.pid
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._server = server
        self._emit = emit
        self._offset = offset

    @classmethod
    async def started(cls, name: str, server: EmbeddedServer, emit: Callable[[Entry], None]) -> "ServerPart":
        """Starts the server. Its log is told from here on: what older lives wrote is not told again."""
        offset = server.log_path.stat().st_size if server.log_path.exists() else 0
        await server.start()
        part = cls(name, server, emit, offset)
        part._tell()
        return part

    async def wait(self) -> str:
        while self._server.pid == self.pid:
            self._tell()
            await asyncio.sleep(_POLL_S)
        self._tell()
        return "ended"

    async def stop(self, grace_s: float) -> None:
        """grace_s is not used: a database is given the time it needs, bounded by its own limits."""
        await self._server.stop()
        self._tell()

    def _tell(self) -> None:
        """Hands on what the server wrote since the last time; a replaced file is read from its beginning."""
        try:
            with self._server.log_path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._offset = 0 if size < self._offset else self._offset
                file.seek(self._offset)
                whole, _, _ = file.read(1 << 20).rpartition(b"\n")
        except OSError:
            return
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.decode(errors="replace").splitlines():
            if line.strip():
                entry = parse(line.rstrip(), self.name)
                self.tail.append(short(entry))
                self._emit(entry)
