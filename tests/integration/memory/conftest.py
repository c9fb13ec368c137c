"""A running memory service on a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import pytest
import pytest_asyncio
from anneal.memory.v1 import memory_pb2 as pb
from anneal.memory.v1.memory_pb2_grpc import MemoryServiceStub
from anneal_contracts.canonical import digest
from anneal_memory.app import MemoryApp
from anneal_memory.settings import MemorySettings
from anneal_runtime.embedded import EmbeddedPostgres
from anneal_runtime.rpc import channel
from anneal_runtime.testing import fresh_dsn

if TYPE_CHECKING:
    # The generated asynchronous view of the stub exists for the type checker alone.
    from anneal.memory.v1.memory_pb2_grpc import MemoryServiceAsyncStub

    Stub: TypeAlias = MemoryServiceAsyncStub
else:
    Stub = MemoryServiceStub

Serve = Callable[..., AbstractAsyncContextManager[Stub]]
EL9 = "redhat-9.2 scap-0.1.65"


@pytest.fixture(scope="session")
def one_database(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database for all tests of this folder: making one costs more than most of them."""
    with asyncio.Runner() as runner:
        context = fresh_dsn(postgres_server)
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@pytest_asyncio.fixture
async def postgres_dsn(one_database: str) -> AsyncIterator[str]:
    """As fresh as a new database: the service's schema is gone after each test."""
    yield one_database
    conn = await asyncpg.connect(one_database)
    await conn.execute("DROP SCHEMA IF EXISTS memory CASCADE")
    await conn.close()


@pytest.fixture
def serve(postgres_dsn: str, auth_token: str) -> Serve:
    """Starts a service on the test's database; used twice it is a restart, or a second replica."""

    @asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[Stub]:
        values = {"postgres_dsn": postgres_dsn, "auth_token": auth_token, **settings}
        app = await MemoryApp.create(MemorySettings(**values))  # type: ignore[arg-type]
        await app.start()
        wire = channel(f"127.0.0.1:{app.port}", auth_token)
        try:
            yield MemoryServiceStub(wire)
        finally:
            await wire.close()
            await app.stop()

    return start


@pytest_asyncio.fixture
async def stub(serve: Serve) -> AsyncIterator[Stub]:
    async with serve() as one:
        yield one


def outcome(script: str, *, item: str = "rule-1", worked: bool = True, tip_id: str = "", **other: str) -> pb.Outcome:
    values = {"action_kind": "bash", "action_title": "a fix", "origin": "vendor", "mechanism": "because", **other}
    return pb.Outcome(
        item_id=item,
        action_hash=digest(values["action_kind"], script),
        content=script,
        worked=worked,
        tip_id=tip_id,
        **values,
    )


async def record(
    stub: Stub, *outcomes: pb.Outcome, run: str = "run-1", key: str = "", fingerprint: str = EL9
) -> pb.RecordResponse:
    request = pb.RecordRequest(
        idempotency_key=key or f"{run}-outcomes", run_id=run, skill="stig", fingerprint=fingerprint, outcomes=outcomes
    )
    return await stub.Record(request)


async def recall(stub: Stub, *items: str, fingerprint: str = EL9, skill: str = "stig") -> list[pb.Tip]:
    answer = await stub.Recall(
        pb.RecallRequest(skill=skill, fingerprint=fingerprint, item_ids=items or ("rule-1",), role="worker")
    )
    return list(answer.tips)
