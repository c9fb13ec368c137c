"""Spans leave the process when, and only when, an endpoint is configured."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

CODE = """
import sys
from anneal_runtime import telemetry
telemetry.configure("svc", sys.argv[1])
with telemetry.tracer("t").start_as_current_span("parent"):
    telemetry.tracer("t").start_span("child").end()
telemetry.shutdown()
"""


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[Any] = []

    async def Export(self, request: Any, context: Any) -> Any:  # the name on the wire
        self.seen += request.resource_spans
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    server = grpc.aio.server()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(one, server)
    one.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield one
    await server.stop(0)


async def run(endpoint: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CODE, endpoint)
    assert await process.wait() == 0


async def test_spans_arrive_under_the_services_name_with_their_parents(receiver: Receiver) -> None:
    await run(f"http://127.0.0.1:{receiver.port}")
    resource = {a.key: a.value.string_value for a in receiver.seen[0].resource.attributes}
    spans = {span.name: span for scope in receiver.seen[0].scope_spans for span in scope.spans}
    assert resource == {"service.name": "anneal-svc"}
    assert spans["child"].parent_span_id == spans["parent"].span_id
    assert spans["child"].trace_id == spans["parent"].trace_id


async def test_nothing_is_sent_without_an_endpoint(receiver: Receiver) -> None:
    await run("")
    assert receiver.seen == []
