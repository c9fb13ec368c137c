"""Real servers for tests, and waiting without sleeping blindly. tests/conftest.py makes fixtures of these."""

import asyncio
import inspect
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from anneal_runtime.children import free_port
from anneal_runtime.embedded import EmbeddedNats, EmbeddedPostgres

TOKEN = "a-token-for-tests-and-nothing-else"  # noqa: S105  # of throw-away servers on loopback


@contextmanager
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One throw-away server for a whole suite; not durable, and its folder is removed."""
    folder = Path(tempfile.mkdtemp(prefix="anneal-pg-"))
    # Open to pass through, so that the server's own system user can get in when we are root.
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder, free_port(), TOKEN, settings={"autovacuum": "off"}, durable=False)
    try:
        server.start_sync()
        yield server
    finally:
        server.stop_sync()
        server.remove()


@asynccontextmanager
async def fresh_dsn(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """Address of a new empty database on server; dropped afterwards, open connections or not."""
    name = f"t_{secrets.token_hex(6)}"
    await _admin(server, f"CREATE DATABASE {name}")
    try:
        yield f"{server.dsn.rpartition('/')[0]}/{name}"
    finally:
        await _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _admin(server: EmbeddedPostgres, statement: str) -> None:
    conn = await asyncpg.connect(server.dsn)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


@asynccontextmanager
async def nats_server(folder: Path, port: int = 0) -> AsyncIterator[EmbeddedNats]:
    """A server of the test's own on a free port. It may be stopped and started again inside the block."""
    server = EmbeddedNats(folder, port or free_port(), TOKEN)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def eventually(condition: Callable[[], object | Awaitable[object]], timeout: float = 5.0) -> None:
    """Waits until condition (plain or async) gives something true. An AssertionError in it counts as not yet.

    Raises AssertionError with the last failure after timeout seconds.
    """
    until = time.monotonic() + timeout
    while True:
        failure: AssertionError | None = None
        try:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return
        except AssertionError as e:
            failure = e
        if time.monotonic() > until:
            raise AssertionError(f"still not so after {timeout} s") from failure
        await asyncio.sleep(0.01)
