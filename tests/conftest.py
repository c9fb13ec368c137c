"""Fixtures for every suite: real servers, shared where that is safe."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from anneal_runtime import testing
from anneal_runtime.embedded import EmbeddedNats, EmbeddedPostgres


@pytest.fixture(scope="session", autouse=True)
def _one_outer_loop() -> Iterator[None]:
    """pytest-asyncio asks for the thread's loop before it sets its own; without one, Python makes one nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture(scope="session")
def auth_token() -> str:
    """The token of all test servers."""
    return testing.TOKEN


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One Postgres for the whole suite."""
    with testing.postgres_server() as server:
        yield server


@pytest_asyncio.fixture
async def postgres_dsn(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """Address of a fresh database of the test's own."""
    async with testing.fresh_dsn(postgres_server) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A NATS of the test's own; stop() and start() it at will."""
    async with testing.nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def nats_url(nats_server: EmbeddedNats) -> str:
    """Address of the test's NATS; the token is auth_token."""
    return nats_server.url
