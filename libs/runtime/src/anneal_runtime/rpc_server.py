"""Serving: health, reflection, and one interceptor that does auth, tracing, deadline and the error table.

A servicer is a class of async methods that return messages (or async generators that yield them) and just raise
AnnealError. Whatever else it raises becomes INTERNAL with nothing of its text, and a traceback in the log.
"""

import asyncio
import hmac
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from anneal_runtime import rpc_wire, telemetry
from anneal_runtime.errors import (
    AnnealError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Unauthenticated,
)

log = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)

Register = Callable[[grpc.aio.Server], None]
_Behaviour = Callable[[Any, Any], Any]
_MIN_TOKEN = 16

_SERVER_OPTIONS: list[tuple[str, Any]] = [
    # A second server on the same port must fail, not share its calls.
    ("grpc.so_reuseport", 0),
    # Clients ping every 30 s while a call runs; fewer than 10 s apart is a fault of theirs.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


class _Guarded(grpc.GenericRpcHandler):
    """The methods of a service, each behind the door. Made once a method."""

    def __init__(
        self, inner: grpc.GenericRpcHandler, guard: "Callable[[str, Any], grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        self._inner = inner
        self._guard = guard
        self._known: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        known = self._known.get(details.method)
        if known is None and (handler := self._inner.service(details)) is not None:
            known = self._known[details.method] = self._guard(details.method, handler)
        return known


class _Door:
    """Stands before every method of a server: services are registered through it.

    An interceptor would do the same, and build every handler anew for each call.
    """

    def __init__(self, token: str, server: grpc.aio.Server) -> None:
        self._expected = f"Bearer {token}".encode()
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """What generated code calls with the methods of a service."""
        self._server.add_generic_rpc_handlers([_Guarded(handler, self._guarded) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Generated code registers the same methods this way too; the other way is enough."""

    def _guarded(self, method: str, handler: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        kind = (
            ("stream" if handler.request_streaming else "unary")
            + "_"
            + ("stream" if handler.response_streaming else "unary")
        )
        make = self._streaming if handler.response_streaming else self._unary
        build = getattr(grpc, f"{kind}_rpc_method_handler")
        guarded: grpc.RpcMethodHandler[Any, Any] = build(
            make(method, getattr(handler, kind)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return guarded

    def _unary(self, method: str, behaviour: _Behaviour) -> _Behaviour:
        async def call(request: Any, context: Any) -> Any:
            async with self._passage(method, context):
                return await behaviour(request, context)

        return call

    def _streaming(self, method: str, behaviour: _Behaviour) -> _Behaviour:
        # A coroutine that writes, not a generator: spans and timeouts then begin and end in one task.
        async def call(request: Any, context: Any) -> None:
            async with self._passage(method, context):
                answers = behaviour(request, context)
                if inspect.isawaitable(answers):
                    await answers
                    return
                try:
                    async for answer in answers:
                        await context.write(answer)
                finally:
                    await answers.aclose()

        return call

    @asynccontextmanager
    async def _passage(self, method: str, context: Any) -> AsyncIterator[None]:
        """Everything that happens around the servicer's own code."""
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        error: AnnealError
        with _tracer.start_as_current_span(
            method.lstrip("/"), context=telemetry.extract(metadata), kind=SpanKind.SERVER, record_exception=False
        ) as span:
            try:
                self._authenticate(metadata)
                async with _within(context.time_remaining()):
                    yield
                return
            except grpc.aio.AbortError:
                raise
            except AnnealError as e:
                error = e
            except Exception:
                log.exception("call failed", extra={"rpc": method})
                error = Internal("internal error; the service's log has the cause")
            _mark(span, method, error)
        trailing = ((rpc_wire.ERROR_KEY, rpc_wire.encode_error(error)), rpc_wire.NO_RETRY)
        await context.abort(error.grpc_status, error.message, trailing_metadata=trailing)

    def _authenticate(self, metadata: dict[str, str]) -> None:
        if not hmac.compare_digest(metadata.get(rpc_wire.AUTH_KEY, "").encode(), self._expected):
            raise Unauthenticated("the call carries no valid token")


# What registers itself asks whether this is one of asyncio's servers.
grpc.aio.Server.register(_Door)


@asynccontextmanager
async def _within(remaining_s: float | None) -> AsyncIterator[None]:
    """Ends the block when the caller's time is over. Raises DeadlineExceeded."""
    if remaining_s is None:
        yield
        return
    at = asyncio.get_running_loop().time() + remaining_s
    before = rpc_wire.deadline.set(at)
    limit = asyncio.timeout_at(at)
    try:
        async with limit:
            yield
    except TimeoutError as e:
        if limit.expired():
            raise DeadlineExceeded("the caller's deadline passed") from e
        raise
    finally:
        rpc_wire.deadline.reset(before)


def _mark(span: Span, method: str, error: AnnealError) -> None:
    span.set_attribute("rpc.grpc.status_code", error.grpc_status.value[0])
    span.set_attribute("anneal.reason", error.reason)
    span.set_status(Status(StatusCode.ERROR, error.message))
    log.debug("call refused", extra={"rpc": method, "reason": error.reason, "field": error.field})


class RpcServer:
    """A server that is listening. port is the one it got, also when 0 was asked for."""

    def __init__(self, server: grpc.aio.Server, checks: Any, names: Sequence[str], port: int) -> None:
        self._server = server
        self._checks = checks
        self._names = ("", *names)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = port

    def set_serving(self, serving: bool) -> None:
        """What the health service says, from the loop's next turn on, of the server as a whole and of each service."""
        task = asyncio.create_task(self._set_serving(serving))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set_serving(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._checks.set(name, status)

    async def stop(self, grace: float = 10.0) -> None:
        """Says not serving, refuses new calls, and gives running ones grace seconds before they are cancelled."""
        await self._checks.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self._server.wait_for_termination()


async def serve(
    *,
    listen: str,
    token: str,
    services: Sequence[tuple[str, Register]],
    max_message_mb: int = rpc_wire.MAX_MESSAGE_MB,
) -> RpcServer:
    """Starts a server on listen (host:port); services are pairs of full proto name and a function that registers it.

    Health says SERVING from the start. Raises InvalidArgument for a weak token, FailedPrecondition for a taken port.
    """
    if len(token) < _MIN_TOKEN:
        raise InvalidArgument(f"must have {_MIN_TOKEN} characters or more", field="auth_token")
    options = [*_SERVER_OPTIONS, *rpc_wire.size_options(max_message_mb)]
    server = grpc.aio.server(options=options)
    door = cast(grpc.aio.Server, _Door(token, server))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for _, register in services:
        register(door)
    names = [name for name, _ in services]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], door)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as e:
        raise FailedPrecondition(f"cannot listen on {listen}: is the port taken?", field="listen") from e
    await server.start()
    rpc = RpcServer(server, checks, names, port)
    await rpc._set_serving(True)
    return rpc
