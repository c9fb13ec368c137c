"""Classes of work on a real NATS: each has a queue and lanes of its own, and none waits for another."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal.supervisor.v1.supervisor_pb2_grpc import (
    SupervisorServiceServicer,
    add_SupervisorServiceServicer_to_server,
)
from anneal_contracts.canonical import canonical_json
from anneal_contracts.facts import Action, FixSource, Mutability
from anneal_contracts.work import SUBJECT_BY_KIND, Applied, Apply, Reflect, Reflected, Result, WorkClass
from anneal_runtime.bus import WORK, Bus, QueueFigures
from anneal_runtime.clock import SystemClock
from anneal_runtime.embedded import EmbeddedNats
from anneal_runtime.errors import InvalidArgument
from anneal_runtime.rpc import channel, serve
from anneal_runtime.settings import load
from anneal_runtime.testing import TOKEN
from anneal_skillkit.bench import Handler, Workbench
from anneal_skillkit.doer import take_in
from anneal_skillkit.loader import SkillSet
from anneal_worker.settings import WorkerSettings
from pydantic import TypeAdapter

from tests.integration.queues.conftest import eventually
from tests.unit.core.world import item

RESULT: TypeAdapter[Result] = TypeAdapter(Result)
WAITS = (0.1, 0.1, 0.1)


class Reports(SupervisorServiceServicer):
    """A supervisor that takes every result and notes when each command's came."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    async def ReportResult(self, request: sup.ReportResultRequest, context: Any) -> sup.ReportResultResponse:
        self.at[RESULT.validate_json(request.result_json).command_id] = time.monotonic()
        return sup.ReportResultResponse(accepted=True)


class Doers:
    """A process' worth of doers: one connection, one workbench, handlers that hold reports back."""

    def __init__(self, bus: Bus, bench: Workbench) -> None:
        self.bus = bus
        self.bench = bench
        self.gate = asyncio.Event()
        self.begun: list[str] = []

    async def take(self, work_class: WorkClass, lanes: int) -> None:
        handlers: Mapping[str, Handler] = {"apply": self.apply, "reflect": self.reflect}
        await take_in(self.bus, self.bench, work_class, handlers, concurrency=lanes, retry_waits_s=WAITS)

    async def apply(self, command: Apply) -> Result:
        self.begun.append(command.command_id)
        return Applied(command_id=command.command_id, state="applied")

    async def reflect(self, command: Reflect) -> Result:
        self.begun.append(command.command_id)
        await self.gate.wait()
        return Reflected(command_id=command.command_id)

    async def send(self, kind: str, command_id: str) -> None:
        common: dict[str, Any] = {"command_id": command_id, "run_id": "run-1", "skill": "s", "target": "t"}
        common["deadline"] = time.time() + 60
        action = Action(
            source=FixSource.VENDOR, kind="bash", title="t", content="true\n", mutability=Mutability.REVERSIBLE
        )
        command = (
            Apply(**common, item_id="a", attempt=1, action=action, effect_key=command_id)
            if kind == "apply"
            else Reflect(**common, item=item("a"), past=(), reason="r")
        )
        await self.bus.publish(SUBJECT_BY_KIND[kind], canonical_json(command), msg_id=f"run-1/{command_id}")

    async def figures(self, work_class: WorkClass) -> QueueFigures:
        return await self.bus.queue(stream=WORK.name, durable=work_class.value, subject=work_class.subjects)


@pytest.fixture
def reports() -> Reports:
    return Reports()  # type: ignore[abstract]  # it answers only what doers ask


@pytest_asyncio.fixture
async def make_doers(nats_server: EmbeddedNats, tmp_path: Path, reports: Reports) -> AsyncIterator[Any]:
    """Makes doers; each stands for a process of its own."""
    async with AsyncExitStack() as stack:
        name = "anneal.supervisor.v1.SupervisorService"
        services = [(name, lambda server: add_SupervisorServiceServicer_to_server(reports, server))]
        server = await serve(listen="127.0.0.1:0", token=TOKEN, services=services)
        stack.push_async_callback(server.stop, 0)

        async def make() -> Doers:
            conn = channel(f"127.0.0.1:{server.port}", TOKEN)
            stack.push_async_callback(conn.close)
            bus = await Bus.connect(nats_server.url, TOKEN, name="doers")
            await bus.ensure_streams(WORK)
            skills = SkillSet(skills={}, broken={})
            bench = Workbench(skills=skills, cache=tmp_path, supervisor=conn, checkpoint=conn, clock=SystemClock())
            doers = Doers(bus, bench)
            stack.push_async_callback(bus.close, 0.1)
            stack.callback(doers.gate.set)
            return doers

        yield make


async def test_a_slow_report_never_delays_an_action(make_doers: Any, reports: Reports) -> None:
    doers: Doers = await make_doers()
    await doers.take(WorkClass.POST, lanes=1)
    await doers.take(WorkClass.ACTION, lanes=1)
    for n in range(20):
        await doers.send("reflect", f"report-{n}")
    await eventually(lambda: doers.begun == ["report-0"])
    sent: dict[str, float] = {}
    for n in range(20):
        sent[f"act-{n}"] = time.monotonic()
        await doers.send("apply", f"act-{n}")
        await eventually(lambda n=n: f"act-{n}" in reports.at)  # type: ignore[misc]
    took = sorted(reports.at[command] - at for command, at in sent.items())
    assert took[10] < 0.5, took
    assert [c for c in reports.at if c.startswith("report")] == [], "all of it while the first report still ran"
    assert await doers.figures(WorkClass.POST) == QueueFigures(depth=19, in_flight=1)
    doers.gate.set()
    await eventually(lambda: len(reports.at) == 40)


async def test_a_burst_of_one_class_leaves_the_lanes_of_another_alone(make_doers: Any, reports: Reports) -> None:
    doers: Doers = await make_doers()
    await doers.take(WorkClass.POST, lanes=4)
    await doers.take(WorkClass.ACTION, lanes=2)
    for n in range(40):
        await doers.send("reflect", f"report-{n}")
    await eventually(lambda: len(doers.begun) == 4)
    assert (await doers.figures(WorkClass.POST)).in_flight == 4

    async def two_lanes_wait() -> bool:
        return await doers.figures(WorkClass.ACTION) == QueueFigures(idle=2)

    await eventually(two_lanes_wait)


async def test_replicas_of_one_class_share_its_work_and_others_never_see_it(make_doers: Any, reports: Reports) -> None:
    first, second, other = await make_doers(), await make_doers(), await make_doers()
    for doers in (first, second):
        await doers.take(WorkClass.POST, lanes=1)
    await other.take(WorkClass.ACTION, lanes=1)
    await first.send("reflect", "report-1")
    await first.send("reflect", "report-2")
    await eventually(lambda: sorted(first.begun + second.begun) == ["report-1", "report-2"])
    assert len(first.begun) == len(second.begun) == 1
    assert other.begun == []


def test_a_worker_may_take_in_one_class_and_refuses_one_that_is_not_its_own() -> None:
    environ = {
        "ANNEAL_SUPERVISOR_ADDR": "h:1",
        "ANNEAL_CHECKPOINT_ADDR": "h:1",
        "ANNEAL_MEMORY_ADDR": "h:1",
        "ANNEAL_GATEWAY_URL": "http://h",
        "ANNEAL_SKILLS_DIR": "/s",
        "ANNEAL_HOME": "/h",
    }
    assert load(WorkerSettings, environ).work_classes == ("model", "action", "post")
    only = load(WorkerSettings, {**environ, "ANNEAL_WORKER_WORK_CLASSES": '["action"]'})
    assert only.work_classes == (WorkClass.ACTION,)
    for wrong in ('["evaluation"]', "[]"):
        with pytest.raises(InvalidArgument) as caught:
            load(WorkerSettings, {**environ, "ANNEAL_WORKER_WORK_CLASSES": wrong})
        assert caught.value.field == "ANNEAL_WORKER_WORK_CLASSES"
