"""The bus: NATS JetStream, for work that competing consumers share and for events. A messenger, never the truth.

Delivery is at least once: handlers are idempotent by msg_id. The consuming side is in bus_consumer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import nats
import nats.errors
import nats.js.errors
from anneal_contracts.work import EVENT_STREAM, WORK_STREAM
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from anneal_runtime import telemetry
from anneal_runtime.bus_consumer import Consumer, ConsumerSpec, Message
from anneal_runtime.errors import AnnealError, FailedPrecondition, Unavailable
from anneal_runtime.redelivery import Redelivery

log = logging.getLogger(__name__)

__all__ = ["EVENTS", "WORK", "Bus", "Consumer", "Message", "QueueFigures", "Redelivery", "StreamSpec"]

MSG_ID = "Nats-Msg-Id"
_PUBLISH_TIMEOUT_S = 5.0
_RECONNECT_WAIT_S = 0.1
# "stream name already in use with a different configuration"
_ERR_STREAM_DIFFERS = 10058


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """A stream as it should be. max_age_s: 0 keeps messages until they are consumed; duplicates_s: window of msg_id."""

    name: str
    subjects: tuple[str, ...]
    retention: Literal["work", "limits"]
    max_age_s: float = 0.0
    duplicates_s: float = 120.0


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """A durable consumer at this moment.

    depth: never delivered yet. in_flight: delivered and not done, be it that a handler runs or that a wait runs until
    the next delivery. redelivered: those of them that were delivered before. idle: pulls that wait for a message.
    """

    depth: int = 0
    in_flight: int = 0
    redelivered: int = 0
    idle: int = 0


WORK = StreamSpec(name=WORK_STREAM, subjects=("anneal.work.>",), retention="work")
EVENTS = StreamSpec(name=EVENT_STREAM, subjects=("anneal.events.>",), retention="limits", max_age_s=7 * 86400.0)


class Bus:
    """A connection to NATS. It reconnects for ever; calls made meanwhile raise Unavailable after a few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nc = Client()
        self._js: Any = None
        self._streams: dict[str, StreamSpec] = {}
        self._consumers: list[Consumer] = []

    @classmethod
    async def connect(cls, url: str, token: str, *, name: str, timeout_s: float = 10.0) -> "Bus":
        """Connects; name is what the server shows. Raises Unavailable when no server answers within timeout_s."""
        bus = cls(name)
        try:
            async with asyncio.timeout(timeout_s):
                await bus._nc.connect(
                    url,
                    token=token,
                    name=name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_WAIT_S,
                    connect_timeout=2,
                    error_cb=bus._on_error,
                    disconnected_cb=bus._on_disconnected,
                    reconnected_cb=bus._on_reconnected,
                )
        except (TimeoutError, OSError, nats.errors.Error) as e:
            await bus._nc.close()
            raise Unavailable(f"NATS does not answer at {url}: {e or 'timed out'}") from e
        bus._js = bus._nc.jetstream(timeout=_PUBLISH_TIMEOUT_S)
        return bus

    async def ensure_streams(self, *specs: StreamSpec) -> None:
        """Makes the streams as the specs say; may be repeated. Raises FailedPrecondition where one cannot."""
        for spec in specs:
            self._streams[spec.name] = spec
            config = _stream_config(spec)
            try:
                await self._js.add_stream(config)
            except nats.js.errors.BadRequestError as e:
                if e.err_code != _ERR_STREAM_DIFFERS:
                    raise _refused(spec, e) from e
                await self._update(spec, config)
            except (TimeoutError, nats.errors.Error) as e:
                raise _refused(spec, e) from e

    async def _update(self, spec: StreamSpec, config: StreamConfig) -> None:
        try:
            await self._js.update_stream(config)
        except (TimeoutError, nats.errors.Error) as e:
            raise _refused(spec, e) from e

    async def publish(self, subject: str, data: bytes, *, msg_id: str) -> bool:
        """Returns True when stored, False when msg_id was stored within the duplicates window. Raises Unavailable."""
        headers = {MSG_ID: msg_id, **telemetry.inject()}
        try:
            ack = await self._js.publish(subject, data, timeout=_PUBLISH_TIMEOUT_S, headers=headers)
        except (TimeoutError, nats.errors.Error) as e:
            raise Unavailable(f"NATS did not take the message on {subject}: {e!r}") from e
        return not ack.duplicate

    async def consume(
        self,
        *,
        stream: str,
        durable: str,
        subjects: Sequence[str],
        handler: Callable[[Message], Awaitable[None]],
        concurrency: int,
        ack_wait_s: float = 30.0,
        redelivery: Redelivery | None = None,
        on_poison: Callable[[Message, AnnealError], Awaitable[None]] | None = None,
    ) -> Consumer:
        """Starts concurrency lanes that pull from the durable consumer and run handler; see Consumer for the rules."""
        spec = ConsumerSpec(
            stream=stream,
            durable=durable,
            subjects=tuple(subjects),
            concurrency=concurrency,
            ack_wait_s=ack_wait_s,
            redelivery=redelivery or Redelivery(),
        )
        consumer = Consumer(self._nc, spec, handler, on_poison, lambda: self._restore(stream))
        await consumer.start()
        self._consumers.append(consumer)
        return consumer

    async def queue(self, *, stream: str, durable: str, subject: str) -> QueueFigures:
        """Figures of a consumer; where nobody has made it yet, all messages on subject wait. Raises Unavailable."""
        try:
            try:
                found = await self._js.consumer_info(stream, durable)
            except nats.js.errors.NotFoundError:
                state = (await self._js.stream_info(stream, subjects_filter=subject)).state
                return QueueFigures(depth=sum((state.subjects or {}).values()))
        except (TimeoutError, nats.errors.Error) as e:
            raise Unavailable(f"NATS does not tell of consumer {durable}: {e!r}") from e
        return QueueFigures(
            depth=found.num_pending,
            in_flight=found.num_ack_pending,
            redelivered=found.num_redelivered,
            idle=found.num_waiting,
        )

    async def _restore(self, stream: str) -> None:
        """Makes a stream again that was lost with the server's whole store."""
        if stream in self._streams:
            await self.ensure_streams(self._streams[stream])

    async def close(self, grace_s: float = 5.0) -> None:
        """Stops the consumers (running handlers get grace_s seconds), then the connection. May be repeated."""
        await asyncio.gather(*(consumer.stop(grace_s) for consumer in self._consumers))
        self._consumers.clear()
        if self._nc.is_connected:
            try:
                await self._nc.flush(timeout=2)
            except (TimeoutError, nats.errors.Error) as e:
                log.warning("acks may be lost at close: %r", e)
        else:
            # What waits for a server that is away would make close() fail half-way and leak its tasks.
            self._nc._pending.clear()
            self._nc._pending_data_size = 0
        await self._nc.close()

    async def _on_error(self, e: Exception) -> None:
        log.debug("NATS: %r", e)

    async def _on_disconnected(self) -> None:
        if not self._nc.is_closed:
            log.warning("NATS is gone; reconnecting")

    async def _on_reconnected(self) -> None:
        log.info("NATS is back")
        for consumer in self._consumers:
            consumer.poke()


def _stream_config(spec: StreamSpec) -> StreamConfig:
    retention = RetentionPolicy.WORK_QUEUE if spec.retention == "work" else RetentionPolicy.LIMITS
    return StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=retention,
        storage=StorageType.FILE,
        max_age=spec.max_age_s,
        # The server refuses a window that is longer than messages live.
        duplicate_window=min(spec.duplicates_s, spec.max_age_s or spec.duplicates_s),
    )


def _refused(spec: StreamSpec, e: Exception) -> AnnealError:
    """A stream that the server will not have as it is asked for is our mistake; all else passes."""
    if isinstance(e, nats.js.errors.APIError) and not isinstance(e, nats.js.errors.ServiceUnavailableError):
        return FailedPrecondition(f"NATS refuses stream {spec.name}: {e.description}")
    return Unavailable(f"NATS did not make stream {spec.name}: {e!r}")
