"""The trace of a run: five services over real gRPC, NATS and Postgres in this process; only the machine is a stub."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal.supervisor.v1 import supervisor_pb2 as sv
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_runtime import telemetry
from anneal_runtime.rpc import channel
from anneal_runtime.story import Place
from anneal_runtime.testing import eventually
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.support import in_process

# Of the stub skill: an item that its first script fixes, and one that its second does.
KEPT, SECOND = "kept-000", "second-016"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    """What every service in this process exports."""
    telemetry.configure("tests", "")
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


@pytest_asyncio.fixture
async def services(
    postgres_dsn: str, nats_url: str, auth_token: str, tmp_path: Path
) -> AsyncIterator[in_process.Services]:
    """All services but the gateway."""
    async with in_process.services(in_process.environment(postgres_dsn, nats_url, auth_token, tmp_path)) as running:
        yield running


class Trace:
    """The spans of one run."""

    def __init__(self, exported: InMemorySpanExporter, run_id: str) -> None:
        self.run_id = run_id
        trace_id = Place(run_id=run_id).ids[0]
        spans = exported.get_finished_spans()
        self.spans = [s for s in spans if s.context is not None and s.context.trace_id == trace_id]

    def find(self, name: str, item_id: str = "", **attributes: str | int) -> ReadableSpan:
        """The one span of this name and item. Fails where there are none or several."""
        wanted = {"anneal.item_id": item_id, **{f"anneal.{k}": v for k, v in attributes.items()}}
        (found,) = [s for s in self.spans if s.name == name and wanted.items() <= dict(s.attributes or {}).items()]
        return found

    def below(self, parent: ReadableSpan) -> list[str]:
        """Names of what stands directly below a span, in the order of its beginning."""
        assert parent.context is not None
        found = [s for s in self.spans if s.parent is not None and s.parent.span_id == parent.context.span_id]
        return [s.name for s in sorted(found, key=lambda s: s.start_time or 0)]


@pytest_asyncio.fixture
async def traced(services: in_process.Services, auth_token: str, exported: InMemorySpanExporter) -> Trace:
    """A run to its end."""
    async with AsyncExitStack() as stack:
        channels = {name: channel(services.addresses[name], auth_token) for name in ("checkpoint", "supervisor")}
        for conn in channels.values():
            stack.push_async_callback(conn.close)
        supervisor, checkpoint = (
            SupervisorServiceStub(channels["supervisor"]),
            CheckpointServiceStub(channels["checkpoint"]),
        )
        target = cp.Target(name="box", driver="nspawn", machine="box")
        await checkpoint.AddTarget(cp.AddTargetRequest(idempotency_key="add", target=target))
        spec = sv.RunSpec(skill="stub", target="box", profile="few", item_ids=[KEPT, SECOND])
        run_id = (await supervisor.CreateRun(sv.CreateRunRequest(idempotency_key="run", spec=spec))).run_id

        async def ended() -> bool:
            run = (await supervisor.GetRun(sv.GetRunRequest(run_id=run_id))).run
            assert run.state != "failed", run.reason
            return bool(run.state == "finished")

        await eventually(ended, timeout=30)
    return Trace(exported, run_id)


def a_run_is_one_trace_from_the_run_over_its_items_to_their_attempts(traced: Trace) -> None:
    run = traced.find("anneal.run")
    assert run.parent is None
    below = traced.below(run)
    assert {"anneal.discover", "anneal.plan", "anneal.verify", "anneal.record", "anneal.release"} <= set(below)
    assert below.count("anneal.item") == 2
    assert traced.below(traced.find("anneal.item", KEPT)) == ["anneal.attempt"]
    assert traced.below(traced.find("anneal.item", SECOND)) == ["anneal.attempt", "anneal.attempt"]


def an_attempt_has_what_was_done_for_it_below_it_and_that_the_calls_it_made(traced: Trace) -> None:
    attempt = traced.find("anneal.attempt", KEPT, attempt=1, ending="kept")
    assert traced.below(attempt) == ["anneal.apply", "anneal.evaluate", "anneal.snapshot"]
    for name, item_id, call in (
        ("anneal.discover", "", "GetTarget"),
        ("anneal.apply", KEPT, "BeginEffect"),
        ("anneal.apply", KEPT, "FinishEffect"),
        ("anneal.snapshot", KEPT, "Snapshot"),
    ):
        method = f"anneal.checkpoint.v1.CheckpointService/{call}"
        assert method in traced.below(traced.find(name, item_id)), name
    # The other side of a call is below this one, and what it did below that.
    client = next(
        s
        for s in traced.spans
        if s.name.endswith("/Snapshot") and s.parent and s.parent.span_id == _id(traced.find("anneal.snapshot", KEPT))
    )
    (served,) = [s for s in traced.spans if s.parent is not None and s.parent.span_id == _id(client)]
    assert served.name == client.name
    assert traced.below(served) == ["checkpoint.snapshot"]


def an_attempt_that_was_taken_back_says_why_and_how(traced: Trace) -> None:
    failed = traced.find("anneal.attempt", SECOND, attempt=1)
    assert traced.below(failed)[:3] == ["anneal.apply", "anneal.evaluate", "anneal.restore"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == dict(failed.attributes or {})["anneal.failure_mode"] == "evaluator_gap"
    assert traced.find("anneal.attempt", SECOND, attempt=2).status.status_code is StatusCode.UNSET


def what_is_below_a_span_lies_within_its_time(traced: Trace) -> None:
    for parent in (traced.find("anneal.run"), traced.find("anneal.item", SECOND)):
        for span in traced.spans:
            if span.parent is not None and span.parent.span_id == _id(parent):
                assert (parent.start_time or 0) <= (span.start_time or 0) + 1_000_000, span.name
                assert (span.end_time or 0) <= (parent.end_time or 0) + 1_000_000, span.name


async def test_the_required_edges_are_in_the_trace_of_a_run(traced: Trace) -> None:
    # One run for all of them: it takes five services.
    a_run_is_one_trace_from_the_run_over_its_items_to_their_attempts(traced)
    an_attempt_has_what_was_done_for_it_below_it_and_that_the_calls_it_made(traced)
    an_attempt_that_was_taken_back_says_why_and_how(traced)
    what_is_below_a_span_lies_within_its_time(traced)


def _id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)
