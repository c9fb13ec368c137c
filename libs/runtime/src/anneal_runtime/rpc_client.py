"""Calling: a channel that adds token, trace and deadline to every call and raises AnnealError for every failure.

It is a thin channel around grpc.aio's own: generated stubs take it as it is. Interceptors would do the same with an
extra task a call, and lose errors that nobody awaits.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, cast

import grpc
import grpc.aio
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from anneal_runtime import rpc_wire, telemetry
from anneal_runtime.errors import AnnealError, DeadlineExceeded, from_status

_tracer = telemetry.tracer(__name__)

# Every write takes an idempotency key, so a call whose connection broke may be sent again: a restart of a service is
# then a pause of a second or so, not an error. What a servicer itself says is never retried here (see NO_RETRY).
_RETRY: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "backoffMultiplier": 3,
                "maxBackoff": "2s",
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

_CLIENT_OPTIONS: list[tuple[str, Any]] = [
    # A restarted service is found again within a blink; gRPC's own back-off goes up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
    # Where an address stands for several replicas, one that stands still delays every other call and not all of them.
    ("grpc.lb_policy_name", "round_robin"),
    # Services on one machine share nothing but the address: no name service is asked for channel settings.
    ("grpc.service_config_disable_resolution", 1),
]


def to_anneal(e: grpc.aio.AioRpcError) -> AnnealError:
    """The error that the server raised, or the one its bare status stands for."""
    for key, value in e.trailing_metadata() or ():
        if key == rpc_wire.ERROR_KEY and isinstance(value, bytes):
            error = rpc_wire.decode_error(value)
            if error is not None:
                return error
    return from_status(e.code(), e.details() or "")


class _Call:
    """A call under way. Awaiting, reading or iterating raises AnnealError; all else is grpc.aio's call object."""

    def __init__(self, call: Any, span: Span) -> None:
        self._call = call
        self._span = span
        self._awaited = False
        call.add_done_callback(self._done)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def _done(self, _: Any) -> None:
        # Whoever waits for the call hears of its end after this, and first notes on the span what came of it.
        if not self._awaited:
            self._end()

    def _end(self) -> None:
        if self._span.is_recording():
            self._span.end()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Around all waiting for the call: errors become AnnealError, and the span ends with what came of it."""
        self._awaited = True
        try:
            yield
        except grpc.aio.AioRpcError as e:
            error = to_anneal(e)
            if self._span.is_recording():
                self._span.set_attribute("anneal.reason", error.reason)
                self._span.set_status(Status(StatusCode.ERROR, error.message))
            raise error from e
        finally:
            self._awaited = False
            if self._call.done():
                self._end()

    def __await__(self) -> Generator[Any, None, Any]:
        with self._noted():
            return (yield from self._call.__await__())

    async def __aiter__(self) -> AsyncIterator[Any]:
        with self._noted():
            try:
                async for message in self._call:
                    yield message
            finally:
                # Who leaves the loop early no longer wants the stream: the server must hear of it.
                self._call.cancel()

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        with self._noted():
            return await self._call.read()


class _Method:
    """A method of a stub: called with a request, gives a _Call."""

    def __init__(self, invoke: Callable[..., Any], path: str, token: str, timeout_s: float | None) -> None:
        self._invoke = invoke
        self._name = path.lstrip("/")
        self._auth = (rpc_wire.AUTH_KEY, f"Bearer {token}")
        self._timeout_s = timeout_s

    def __call__(self, *args: Any, timeout: float | None = None, metadata: Any = None, **kwargs: Any) -> _Call:
        limit = self._limit(timeout)
        span = _tracer.start_span(self._name, kind=SpanKind.CLIENT)
        carried = telemetry.inject(trace.set_span_in_context(span))
        sent = (*(metadata or ()), self._auth, *carried.items())
        return _Call(self._invoke(*args, timeout=limit, metadata=sent, **kwargs), span)

    def _limit(self, timeout: float | None) -> float | None:
        """The least of what the caller gave (else the default) and what is left of the call being served."""
        limit = self._timeout_s if timeout is None else timeout
        at = rpc_wire.deadline.get()
        if at is None:
            return limit
        left = at - asyncio.get_running_loop().time()
        if left <= 0:
            raise DeadlineExceeded("no time is left of the call this one serves")
        return left if limit is None else min(limit, left)


class _Channel(grpc.aio.Channel):
    """grpc.aio's channel with every method wrapped. Streams of answers have no default deadline."""

    def __init__(self, inner: grpc.aio.Channel, token: str, timeout_s: float) -> None:
        self._inner = inner
        self._token = token
        self._timeout_s = timeout_s

    def _wrap(self, kind: str, timeout_s: float | None, path: str, *args: Any, **kwargs: Any) -> Any:
        return _Method(getattr(self._inner, kind)(path, *args, **kwargs), path, self._token, timeout_s)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap("unary_unary", self._timeout_s, method, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap("unary_stream", None, method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap("stream_unary", self._timeout_s, method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._wrap("stream_stream", None, method, *args, **kwargs)

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> "_Channel":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def channel(addr: str, token: str, *, timeout_s: float = 30.0, retry: bool = True) -> grpc.aio.Channel:
    """A channel to addr (host:port); connects on first use. timeout_s is the default deadline of unary calls.

    retry: a connection that fails is tried again for about three seconds before Unavailable is raised; a person who
    waits at a prompt may want to hear it at once.
    """
    options = [*_CLIENT_OPTIONS, *rpc_wire.size_options(rpc_wire.MAX_MESSAGE_MB)]
    options.append(("grpc.service_config", json.dumps(_RETRY)) if retry else ("grpc.enable_retries", 0))
    return cast(grpc.aio.Channel, _Channel(grpc.aio.insecure_channel(addr, options=options), token, timeout_s))
