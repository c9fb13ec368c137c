"""Asks gRPC servers whether they serve."""

import asyncio
from collections.abc import Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

POLL_S = 0.02
# gRPC waits a second and longer between tries to connect; a service comes up in the middle of that.
_CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.enable_http_proxy", 0),
)


async def is_serving(address: str, *, timeout_s: float = 1.0) -> bool:
    """One question; no answer counts as no."""
    async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
        return await _ask(channel, timeout_s)


async def _ask(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until_serving(address: str) -> None:
    """Returns as soon as the server says SERVING; asks every 20 ms. Bounded by the caller."""
    async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
        # Asked again and again: the server is another process, nothing in ours could tell us.
        while not await _ask(channel, 1.0):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
