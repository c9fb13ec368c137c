"""gRPC over a real socket: the error table, the token, deadlines, traces, streams, limits."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from anneal_runtime import rpc, rpc_client, rpc_wire
from anneal_runtime.children import free_port
from anneal_runtime.errors import (
    AnnealError,
    BudgetExhausted,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Leased,
    RateLimited,
    TargetUnreachable,
    Unauthenticated,
    Unavailable,
)
from anneal_runtime.rpc import RpcServer
from anneal_runtime.testing import eventually
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TOKEN = "sixteen characters or more"
NAME = "anneal.test.v1.Echo"


def raw(data: bytes) -> bytes:
    return data


class Echo:
    """A service on bytes: what a generated servicer does, without a proto of its own."""

    def __init__(self) -> None:
        self.slow = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.trace_id = 0
        self.calls = 0
        self.still = False
        self.onward: grpc.aio.Channel | None = None

    async def say(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        if self.still:
            await asyncio.sleep(30)
        self.trace_id = trace.get_current_span().get_span_context().trace_id
        match request:
            case b"leased":
                raise Leased("held by another run", field="target", details={"run": "r1"})
            case b"unreachable":
                raise TargetUnreachable("no route to web1")
            case b"bug":
                raise KeyError("secret of the house")
            case b"timeout":
                raise TimeoutError("of something inside, not of the call")
            case b"slow":
                await self._slow()
            case b"onward":
                assert self.onward is not None
                return bytes(await method(self.onward, "say")(b"remaining", timeout=60))
            case b"remaining":
                return str(context.time_remaining()).encode()
            case b"abort":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "plain gRPC")
        return request

    async def _slow(self) -> None:
        self.slow.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def many(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for part in (b"1", b"2", b"3"):
            if request == b"limit" and part == b"3":
                raise RateLimited("slow down")
            if request == b"bug" and part == b"2":
                raise KeyError("secret of the house")
            yield part
        if request == b"endless":
            await self._slow()

    async def written(self, request: bytes, context: Any) -> None:
        await context.write(b"w")
        if request == b"leased":
            raise Leased("held")

    async def joined(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([part async for part in requests])

    def register(self, server: grpc.aio.Server) -> None:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers: dict[str, Any] = {
            "say": unary(self.say, raw, raw),
            "many": stream(self.many, raw, raw),
            "written": stream(self.written, raw, raw),
            "joined": grpc.stream_unary_rpc_method_handler(self.joined, raw, raw),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


def method(channel: grpc.aio.Channel, name: str, kind: str = "unary_unary") -> Callable[..., Any]:
    make: Any = getattr(channel, kind)
    found: Callable[..., Any] = make(f"/{NAME}/{name}", request_serializer=raw, response_deserializer=raw)
    return found


async def collect(call: AsyncIterator[bytes], parts: list[bytes]) -> None:
    async for part in call:
        parts.append(part)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest_asyncio.fixture
async def server(echo: Echo) -> AsyncIterator[RpcServer]:
    running = await rpc.serve(listen="127.0.0.1:0", token=TOKEN, services=[(NAME, echo.register)])
    yield running
    await running.stop(0)


@pytest_asyncio.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with rpc.channel(f"127.0.0.1:{server.port}", TOKEN) as one:
        yield one


async def test_a_call_comes_back(channel: grpc.aio.Channel) -> None:
    assert await method(channel, "say")(b"hello") == b"hello"


async def test_an_error_arrives_as_the_class_that_was_raised(channel: grpc.aio.Channel) -> None:
    with pytest.raises(Leased) as caught:
        await method(channel, "say")(b"leased")
    assert (caught.value.message, caught.value.field, caught.value.details) == (
        "held by another run",
        "target",
        {"run": "r1"},
    )


async def test_the_wire_shows_status_and_payload_to_other_clients(server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(plain, "say")(b"leased", metadata=(("authorization", f"Bearer {TOKEN}"),))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert b'"reason": "leased"' in bytes(dict(caught.value.trailing_metadata())[rpc_wire.ERROR_KEY])


@pytest.mark.parametrize("request_", [b"bug", b"timeout"])
async def test_a_defect_is_internal_leaks_nothing_and_is_logged(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    with pytest.raises(Internal) as caught:
        await method(channel, "say")(request_)
    assert "secret" not in caught.value.message
    assert "inside" not in caught.value.message
    assert [r.exc_info is not None for r in caplog.records if r.levelno == logging.ERROR] == [True]


async def test_a_status_without_payload_gives_the_class_of_the_status(channel: grpc.aio.Channel) -> None:
    with pytest.raises(BudgetExhausted, match="plain gRPC"):
        await method(channel, "say")(b"abort")


@pytest.mark.parametrize("token", ["", "wrong token that is long enough", TOKEN + "x", "schlüssel"])
async def test_a_wrong_token_is_refused(server: RpcServer, token: str) -> None:
    sent = (("authorization", f"Bearer {token}"),) if token.isascii() else ()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        for name, kind in (("say", "unary_unary"), ("many", "unary_stream")):
            call = method(plain, name, kind)(b"x", metadata=sent)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call if kind == "unary_unary" else call.read())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_channel_with_a_wrong_token_raises_unauthenticated(server: RpcServer) -> None:
    async with rpc.channel(f"127.0.0.1:{server.port}", "wrong") as one:
        with pytest.raises(Unauthenticated):
            await method(one, "joined", "stream_unary")(iter([b"a"]))


async def test_a_short_token_is_refused_at_the_start() -> None:
    with pytest.raises(InvalidArgument) as caught:
        await rpc.serve(listen="127.0.0.1:0", token="short", services=[])
    assert caught.value.field == "auth_token"


async def test_health_needs_no_token_and_follows_set_serving(server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        check = health_pb2_grpc.HealthStub(plain).Check

        async def status(service: str) -> int:
            answer: Any = await check(health_pb2.HealthCheckRequest(service=service))
            return int(answer.status)

        assert [await status(name) for name in ("", NAME)] == [1, 1]
        server.set_serving(False)
        await asyncio.sleep(0)
        assert [await status(name) for name in ("", NAME)] == [2, 2]


async def test_reflection_names_the_services_and_needs_the_token(server: RpcServer, channel: grpc.aio.Channel) -> None:
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    answers = [a async for a in stub.ServerReflectionInfo(iter([ask]))]
    assert NAME in {s.name for s in answers[0].list_services_response.service}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as plain:
        bare: Any = reflection_pb2_grpc.ServerReflectionStub(plain)
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            [a async for a in bare.ServerReflectionInfo(iter([ask]))]


async def test_a_stream_comes_whole(channel: grpc.aio.Channel) -> None:
    assert [p async for p in method(channel, "many", "unary_stream")(b"x")] == [b"1", b"2", b"3"]
    assert [p async for p in method(channel, "written", "unary_stream")(b"x")] == [b"w"]
    assert await method(channel, "joined", "stream_unary")(iter([b"a", b"b"])) == b"ab"


@pytest.mark.parametrize(
    ("name", "request_", "error", "count"),
    [("many", b"limit", RateLimited, 2), ("many", b"bug", Internal, 1), ("written", b"leased", Leased, 1)],
)
async def test_a_stream_that_fails_gives_what_came_and_then_the_error(
    channel: grpc.aio.Channel, name: str, request_: bytes, error: type[AnnealError], count: int
) -> None:
    parts: list[bytes] = []
    with pytest.raises(error):
        await collect(method(channel, name, "unary_stream")(request_), parts)
    assert len(parts) == count


async def test_reading_a_stream_by_hand_maps_errors_too(channel: grpc.aio.Channel) -> None:
    call = method(channel, "many", "unary_stream")(b"limit")
    assert [await call.read(), await call.read()] == [b"1", b"2"]
    with pytest.raises(RateLimited):
        await call.read()


async def test_the_server_hears_when_the_reader_leaves_the_stream(channel: grpc.aio.Channel, echo: Echo) -> None:
    parts = aiter(method(channel, "many", "unary_stream")(b"endless"))
    assert await anext(parts) == b"1"
    await echo.slow.wait()
    await parts.aclose()
    async with asyncio.timeout(2):
        await echo.cancelled.wait()


async def test_the_deadline_ends_the_call_on_both_ends(channel: grpc.aio.Channel, echo: Echo) -> None:
    with pytest.raises(DeadlineExceeded):
        await method(channel, "say")(b"slow", timeout=0.1)
    async with asyncio.timeout(2):
        await echo.cancelled.wait()


async def test_the_default_deadline_of_a_channel_holds(server: RpcServer) -> None:
    async with rpc.channel(f"127.0.0.1:{server.port}", TOKEN, timeout_s=0.1) as one:
        with pytest.raises(DeadlineExceeded):
            await method(one, "say")(b"slow")


async def test_a_call_made_on_behalf_of_another_does_not_outlive_it(channel: grpc.aio.Channel, echo: Echo) -> None:
    echo.onward = channel
    remaining = float(await method(channel, "say")(b"onward", timeout=5))
    # gRPC rounds timeouts up on the wire; the call itself asked for 60.
    assert 0 < remaining < 6


async def test_cancelling_the_caller_cancels_the_server(channel: grpc.aio.Channel, echo: Echo) -> None:
    task = asyncio.ensure_future(method(channel, "say")(b"slow"))
    await echo.slow.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    async with asyncio.timeout(2):
        await echo.cancelled.wait()


async def test_the_trace_of_the_caller_reaches_the_servicer(channel: grpc.aio.Channel, echo: Echo) -> None:
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    with trace.get_tracer("t").start_as_current_span("caller") as span:
        await method(channel, "say")(b"x")
    assert echo.trace_id == span.get_span_context().trace_id != 0


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of calls, once they have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(rpc_client, "_tracer", provider.get_tracer("t"))
    return exporter


async def test_the_span_of_a_failed_call_says_why_and_ends_once(
    channel: grpc.aio.Channel, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Leased):
        await method(channel, "say")(b"leased")
    with pytest.raises(RateLimited):
        async for _ in method(channel, "many", "unary_stream")(b"limit"):
            pass
    reading = method(channel, "written", "unary_stream")(b"leased")
    assert await reading.read() == b"w"
    with pytest.raises(Leased):
        await reading.read()
    await method(channel, "say")(b"x")
    failed = [(False, "leased"), (False, "rate_limited"), (False, "leased")]
    told = [(s.status.is_ok, (s.attributes or {}).get("anneal.reason")) for s in spans.get_finished_spans()]
    assert told == [*failed, (True, None)]
    assert "ended span" not in caplog.text


async def test_the_span_of_a_call_that_nobody_awaits_or_that_is_left_early_ends(
    channel: grpc.aio.Channel, spans: InMemorySpanExporter
) -> None:
    unheard = method(channel, "say")(b"leased")
    await eventually(lambda: len(spans.get_finished_spans()) == 1)
    with pytest.raises(Leased):
        await unheard
    async for _ in method(channel, "many", "unary_stream")(b"endless"):
        break
    await eventually(lambda: len(spans.get_finished_spans()) == 2)


async def test_big_messages_pass_and_too_big_ones_do_not(channel: grpc.aio.Channel) -> None:
    big = bytes(20 << 20)
    assert len(await method(channel, "say")(big)) == len(big)
    with pytest.raises(BudgetExhausted):
        await method(channel, "say")(bytes((64 << 20) + 1))


async def test_nobody_there_is_unavailable_and_a_late_server_is_found(echo: Echo) -> None:
    port = free_port()
    async with rpc.channel(f"127.0.0.1:{port}", TOKEN, retry=False) as one:
        with pytest.raises(Unavailable):
            await method(one, "say")(b"x")
        running = await rpc.serve(listen=f"127.0.0.1:{port}", token=TOKEN, services=[(NAME, echo.register)])

        async def answers() -> bool:
            with contextlib.suppress(Unavailable):
                return bool(await method(one, "say")(b"x") == b"x")
            return False

        await eventually(answers, timeout=3)
        await running.stop(0)


async def test_a_call_outlives_a_restart_of_the_service(echo: Echo) -> None:
    first = await rpc.serve(listen="127.0.0.1:0", token=TOKEN, services=[(NAME, echo.register)])
    async with rpc.channel(f"127.0.0.1:{first.port}", TOKEN) as one:
        await method(one, "say")(b"x")
        await first.stop(0)
        call = asyncio.ensure_future(method(one, "say")(b"again"))
        await asyncio.sleep(0.3)
        assert not call.done()
        second = await rpc.serve(listen=f"127.0.0.1:{first.port}", token=TOKEN, services=[(NAME, echo.register)])
        assert await call == b"again"
        await second.stop(0)


async def test_of_several_replicas_behind_one_address_one_that_stands_still_is_not_asked_every_time() -> None:
    replicas = [Echo(), Echo()]
    async with contextlib.AsyncExitStack() as stack:
        running = [
            await rpc.serve(listen="127.0.0.1:0", token=TOKEN, services=[(NAME, echo.register)]) for echo in replicas
        ]
        for server in running:
            stack.push_async_callback(server.stop, 0)
        address = "ipv4:" + ",".join(f"127.0.0.1:{server.port}" for server in running)
        conn = await stack.enter_async_context(rpc.channel(address, TOKEN, timeout_s=0.2))
        await eventually(lambda: _both_asked(conn, replicas))
        replicas[0].still = True
        answers = await asyncio.gather(*(method(conn, "say")(b"hello") for _ in range(4)), return_exceptions=True)
        assert sorted(type(a) is bytes for a in answers) == [False, False, True, True]


async def _both_asked(conn: grpc.aio.Channel, replicas: list[Echo]) -> bool:
    await method(conn, "say")(b"hello")
    return all(echo.calls for echo in replicas)


async def test_what_a_servicer_says_is_not_asked_again(channel: grpc.aio.Channel, echo: Echo) -> None:
    with pytest.raises(TargetUnreachable):
        await method(channel, "say")(b"unreachable")
    await asyncio.sleep(0.3)
    assert echo.calls == 1


async def test_a_taken_port_is_a_clear_error(server: RpcServer) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await rpc.serve(listen=f"127.0.0.1:{server.port}", token=TOKEN, services=[])
    assert caught.value.field == "listen"
    assert str(server.port) in caught.value.message


async def test_stop_lets_a_running_call_end(server: RpcServer) -> None:
    async with rpc.channel(f"127.0.0.1:{server.port}", TOKEN, retry=False) as one:
        parts = aiter(method(one, "many", "unary_stream")(b"x"))
        assert await anext(parts) == b"1"
        stopping = asyncio.create_task(server.stop(5))
        assert [p async for p in parts] == [b"2", b"3"]
        await stopping
        with pytest.raises(Unavailable):
            await method(one, "say")(b"x")
