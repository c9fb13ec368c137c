"""A real supervisor on a real Postgres and NATS that drives one run, and doers beside it with handlers of the test."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest_asyncio
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal.supervisor.v1.queues_pb2_grpc import QueueServiceStub
from anneal.supervisor.v1.supervisor_pb2 import GetRunRequest, Run
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_contracts.work import WorkClass
from anneal_core.decide import decide
from anneal_runtime import faults
from anneal_runtime.bus import WORK, Bus
from anneal_runtime.clock import SystemClock
from anneal_runtime.embedded import EmbeddedNats
from anneal_runtime.rpc import channel
from anneal_runtime.settings import load
from anneal_runtime.testing import TOKEN
from anneal_runtime.testing import eventually as _eventually
from anneal_skillkit.bench import Handler, Workbench
from anneal_skillkit.doer import take_in
from anneal_skillkit.loader import SkillSet
from anneal_supervisor.app import SupervisorApp
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.store_postgres import PostgresStore

from tests.unit.core.world import World, item

NOBODY = "127.0.0.1:1"
SOON = (0.1, 0.1, 0.1)
# Two processes' worth of work on a machine that others use as well; what it waits for comes at once on a quiet one.
eventually = partial(_eventually, timeout=30)


def waiting_for(kind: str) -> World:
    """A run that was created just now and whose log ends with this command given out."""
    world = World(items=[item("a")], now=time.time())
    world.create()
    while True:
        while payloads := decide(world.state, world.now):
            for payload in payloads:
                world.append(payload)
        if next(iter(world.state.pending.values())).kind == kind:
            return world
        world.answer_one()


@dataclass
class Place:
    """The supervisor with its run, and the way to start doers. command: what the run waits for."""

    world: World
    bus: Bus
    queues: Any
    runs: Any
    stack: AsyncExitStack
    address: str
    cache: Path
    seen: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        return next(iter(self.world.state.pending))

    @property
    def run_id(self) -> str:
        return self.world.state.run_id

    async def run(self) -> Run:
        found: Run = (await self.runs.GetRun(GetRunRequest(run_id=self.run_id))).run
        return found

    def bench(self) -> Workbench:
        to_supervisor = channel(self.address, TOKEN)
        self.stack.push_async_callback(to_supervisor.close)
        nobody = channel(NOBODY, TOKEN)
        self.stack.push_async_callback(nobody.close)
        skills = SkillSet(skills={}, broken={})
        return Workbench(
            skills=skills, cache=self.cache, supervisor=to_supervisor, checkpoint=nobody, clock=SystemClock()
        )

    async def doer(
        self, work_class: WorkClass, handlers: Mapping[str, Handler], *, lanes: int = 1, bus: Bus | None = None
    ) -> None:
        """A doer of one class beside the supervisor."""
        await take_in(bus or self.bus, self.bench(), work_class, handlers, concurrency=lanes, retry_waits_s=SOON)

    async def parked(self) -> list[qu.ParkedMessage]:
        return list((await self.queues.ListQueues(qu.ListQueuesRequest())).parked)

    async def has_parked(self, count: int = 1) -> bool:
        return len(await self.parked()) == count


MakePlace = Callable[[str], Awaitable[Place]]


@pytest_asyncio.fixture
async def make_place(postgres_dsn: str, nats_server: EmbeddedNats, tmp_path: Path) -> AsyncIterator[MakePlace]:
    """Starts a supervisor whose run waits for a command of the given kind."""
    async with AsyncExitStack() as stack:
        stack.callback(faults.arm, "")

        async def make(kind: str) -> Place:
            world = waiting_for(kind)
            store = await PostgresStore.open(postgres_dsn)
            await store.create_run("k", b"", world.log[:1], b"")
            await store.append(world.log[1:], [], token=0, summary=None, ended=False)
            await store.close()
            environ = {
                "ANNEAL_POSTGRES_DSN": postgres_dsn,
                "ANNEAL_NATS_URL": nats_server.url,
                "ANNEAL_AUTH_TOKEN": TOKEN,
                "ANNEAL_CHECKPOINT_ADDR": NOBODY,
                "ANNEAL_MEMORY_ADDR": NOBODY,
                "ANNEAL_EVALUATOR_ADDR": NOBODY,
                "ANNEAL_SHUTDOWN_GRACE_S": "0.2",
            }
            app = SupervisorApp(load(SupervisorSettings, environ))
            await app.start()
            stack.push_async_callback(app.stop)
            address = f"127.0.0.1:{app.port}"
            conn = channel(address, TOKEN)
            stack.push_async_callback(conn.close)
            bus = await Bus.connect(nats_server.url, TOKEN, name="doer")
            stack.push_async_callback(bus.close, 0.1)
            await bus.ensure_streams(WORK)
            return Place(
                world=world,
                bus=bus,
                queues=QueueServiceStub(conn),
                runs=SupervisorServiceStub(conn),
                stack=stack,
                address=address,
                cache=tmp_path,
            )

        yield make
