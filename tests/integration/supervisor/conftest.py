"""A real supervisor and gateway on a real Postgres that holds one finished run, and the command line before them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from anneal.evaluator.v1 import evaluator_pb2 as ev
from anneal.evaluator.v1 import evaluator_pb2_grpc as ev_grpc
from anneal_cli.__main__ import run
from anneal_core.chain import Event
from anneal_gateway.app import GatewayApp
from anneal_gateway.settings import GatewaySettings
from anneal_runtime import rpc
from anneal_runtime.settings import load
from anneal_supervisor.app import SupervisorApp
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.store_postgres import PostgresStore
from anneal_supervisor.view import run_message

from tests.unit.core.world import World, item


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Anneal = Callable[..., Awaitable[Answer]]


class NoBaselines(ev_grpc.EvaluatorServiceServicer):
    """The evaluator's part in looking at a run."""

    async def GetBaseline(self, request: ev.GetBaselineRequest, context: Any) -> ev.GetBaselineResponse:
        return ev.GetBaselineResponse()


@pytest_asyncio.fixture
async def stored(postgres_dsn: str) -> list[Event]:
    """The log of a finished run, as the supervisor's own store wrote it."""
    world = World(items=[item("rule_a"), item("rule_b")])
    world.create()
    state = world.run()
    summary = run_message(state, world.now, items=False).SerializeToString()
    store = await PostgresStore.open(postgres_dsn)
    await store.create_run("key", b"request", world.log[:1], summary)
    await store.append(world.log[1:], [], token=0, summary=summary, ended=True)
    await store.close()
    return world.log


@pytest_asyncio.fixture
async def superuser(postgres_dsn: str, stored: list[Event]) -> AsyncIterator[asyncpg.Connection]:
    """A session of the database's superuser, who may do what the supervisor may not."""
    conn = await asyncpg.connect(postgres_dsn)
    await conn.execute("SET search_path TO supervisor")
    yield conn
    await conn.close()


@pytest_asyncio.fixture
async def anneal(
    postgres_dsn: str,
    nats_url: str,
    auth_token: str,
    stored: list[Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> AsyncIterator[Anneal]:
    """Calls a command of the command line, as its users do."""
    shared = {
        "ANNEAL_POSTGRES_DSN": postgres_dsn,
        "ANNEAL_NATS_URL": nats_url,
        "ANNEAL_AUTH_TOKEN": auth_token,
        "ANNEAL_SHUTDOWN_GRACE_S": "1",
        "ANNEAL_CHECKPOINT_ADDR": "127.0.0.1:1",
        "ANNEAL_MEMORY_ADDR": "127.0.0.1:1",
    }
    async with AsyncExitStack() as stack:
        name = "anneal.evaluator.v1.EvaluatorService"
        register = ev_grpc.add_EvaluatorServiceServicer_to_server
        baselines = NoBaselines()  # type: ignore[abstract]  # nothing else is asked of it
        evaluator = await rpc.serve(
            listen="127.0.0.1:0", token=auth_token, services=[(name, lambda server: register(baselines, server))]
        )
        stack.push_async_callback(evaluator.stop, 0)
        shared["ANNEAL_EVALUATOR_ADDR"] = f"127.0.0.1:{evaluator.port}"
        supervisor = SupervisorApp(load(SupervisorSettings, shared))
        await supervisor.start()
        stack.push_async_callback(supervisor.stop)
        shared["ANNEAL_SUPERVISOR_ADDR"] = f"127.0.0.1:{supervisor.port}"
        gateway = await GatewayApp.create(load(GatewaySettings, shared), {})
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        monkeypatch.setenv("ANNEAL_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("ANNEAL_TOKEN", auth_token)
        monkeypatch.setenv("ANNEAL_GATEWAY", f"127.0.0.1:{gateway.port}")

        async def call(*argv: str) -> Answer:
            code = await asyncio.to_thread(run, argv)
            written = capfd.readouterr()
            return Answer(code=code, out=written.out, err=written.err)

        yield call
