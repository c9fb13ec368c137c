"""The consuming side of the bus: a durable pull consumer, worked by a fixed number of lanes.

Rules for a message: while its handler runs the server hears of it every ack_wait/3. The handler returns: ack. It
raises: delivered again after a wait, as Redelivery says. After the last delivery, also where processes died with it:
on_poison(message, error), then the server drops it.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from opentelemetry.trace import SpanKind, Status, StatusCode

from anneal_runtime import telemetry
from anneal_runtime.errors import AnnealError, DoerDied, Unavailable
from anneal_runtime.redelivery import Redelivery, crashed

log = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)

# One pull waits this long at the server, which says every so often that it still does.
_PULL_EXPIRES_S = 60.0
_PULL_HEARTBEAT_S = 10.0
_RETRY_S = 0.2
_NO_MESSAGES = frozenset({"404", "408"})
_IDLE = "100"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A delivered message. deliveries counts from 1; msg_id is the publisher's.

    retry_in_s: when it comes again should the handler fail in a way worth retrying; None: this is the last delivery.
    poison_retry_in_s: the same for any other failure.
    """

    data: bytes
    subject: str
    msg_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    deliveries: int = 1
    retry_in_s: float | None = None
    poison_retry_in_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConsumerSpec:
    """ack_wait_s: silence after which the server takes a process for dead."""

    stream: str
    durable: str
    subjects: tuple[str, ...]
    concurrency: int
    ack_wait_s: float
    redelivery: Redelivery


Handler = Callable[[Message], Awaitable[None]]
OnPoison = Callable[[Message, AnnealError], Awaitable[None]]
# What the server is told of a message in the end.
Answer = Callable[[], Awaitable[None]]


class Consumer:
    """A running consumer. Its lanes survive restarts of NATS, also one that lost its store."""

    def __init__(
        self,
        nc: Client,
        spec: ConsumerSpec,
        handler: Handler,
        on_poison: OnPoison | None,
        restore: Callable[[], Awaitable[None]],
    ) -> None:
        self._nc = nc
        self._spec = spec
        self._handler = handler
        self._on_poison = on_poison
        self._restore = restore
        self._lanes: list[_Lane] = []

    async def start(self) -> None:
        """Makes the durable consumer and starts the lanes. Raises Unavailable."""
        await self._ensure()
        self._lanes = [_Lane(self._nc, self._spec, self._process, self._recover) for _ in range(self._spec.concurrency)]
        for lane in self._lanes:
            await lane.start()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Pulls no more, waits grace_s seconds for running handlers, cancels the rest: their messages go to others."""
        await asyncio.gather(*(lane.stop(grace_s) for lane in self._lanes))
        self._lanes.clear()

    def poke(self) -> None:
        """Tells the lanes that their pulls were lost with the connection."""
        for lane in self._lanes:
            lane.poke()

    async def _ensure(self) -> None:
        config = ConsumerConfig(
            durable_name=self._spec.durable,
            filter_subjects=list(self._spec.subjects),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._spec.ack_wait_s,
            # Counted here: the server would keep a message that was delivered too often and tell nobody.
            max_deliver=-1,
            max_ack_pending=1000,
        )
        try:
            await self._nc.jsm().add_consumer(self._spec.stream, config)
        except (TimeoutError, nats.errors.Error) as e:
            raise Unavailable(f"NATS did not make consumer {self._spec.durable}: {e!r}") from e

    async def _recover(self) -> None:
        """After a pull was refused: the consumer or its stream may be gone."""
        try:
            await self._restore()
            await self._ensure()
        except AnnealError as e:
            log.warning("consumer %s waits: %s", self._spec.durable, e)

    async def _process(self, raw: Msg) -> None:
        message = _message_of(raw, self._spec.redelivery)
        beat = asyncio.create_task(self._beat(raw))
        try:
            with _tracer.start_as_current_span(
                f"consume {message.subject}", context=telemetry.extract(message.headers), kind=SpanKind.CONSUMER
            ) as span:
                span.set_attribute("messaging.message.id", message.msg_id)
                answer: Answer = raw.ack
                if error := await self._handled(message):
                    span.set_status(Status(StatusCode.ERROR, error.message))
                    answer = await self._failed(raw, message, error)
        except asyncio.CancelledError:
            # Stopping: another process may take it at once.
            with contextlib.suppress(nats.errors.Error):
                await raw.nak()
            raise
        finally:
            # Before the answer: a heartbeat after it would take the message for one that is worked on.
            beat.cancel()
        await answer()

    async def _handled(self, message: Message) -> AnnealError | None:
        """Runs the handler; returns how it failed."""
        if self._spec.redelivery.outlived(message.deliveries):
            return DoerDied(f"delivered {message.deliveries - 1} times, and nobody lived to say what came of it")
        try:
            await self._handler(message)
        except AnnealError as e:
            return e
        except Exception as e:
            log.exception("handler failed", extra={"subject": message.subject, "msg_id": message.msg_id})
            return crashed(e)
        return None

    async def _beat(self, raw: Msg) -> None:
        """Tells the server that the message is being worked on, for ever; a server that is away hears the next one."""
        while True:
            await asyncio.sleep(self._spec.ack_wait_s / 3)
            with contextlib.suppress(nats.errors.Error):
                await raw.in_progress()

    async def _failed(self, raw: Msg, message: Message, error: AnnealError) -> Answer:
        """What the server is told: when to deliver the message again, or, once it was handed over, to drop it."""
        extra = {"subject": message.subject, "msg_id": message.msg_id, "deliveries": message.deliveries}
        wait_s = message.retry_in_s if error.retryable else message.poison_retry_in_s
        if wait_s is not None:
            log.info("will be tried again: %s", error, extra={**extra, "wait_s": round(wait_s, 1)})
            return partial(raw.nak, delay=wait_s)
        log.warning("given up: %s", error, extra=extra)
        try:
            if self._on_poison is not None:
                await self._on_poison(message, error)
        except Exception:
            log.exception("on_poison failed; the message stays", extra=extra)
            return partial(raw.nak, delay=self._spec.redelivery.wait_s(message.deliveries))
        return raw.term  # type: ignore[no-any-return]  # nats has no types


class _Lane:
    """Pulls one message, processes it, pulls the next. One outstanding pull with a long wait: no polling, no delay."""

    def __init__(
        self,
        nc: Client,
        spec: ConsumerSpec,
        process: Callable[[Msg], Awaitable[None]],
        recover: Callable[[], Awaitable[None]],
    ) -> None:
        self._nc = nc
        self._inbox = nc.new_inbox()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.durable}"
        self._process = process
        self._recover = recover
        # None: the outstanding pull is lost, pull again.
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._busy = asyncio.Lock()
        self._sub: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._sub = await self._nc.subscribe(self._inbox, cb=self._arrived.put)
        self._task = asyncio.create_task(self._run())

    def poke(self) -> None:
        self._arrived.put_nowait(None)

    async def stop(self, grace_s: float) -> None:
        """Stops the pull at once and the running handler after grace_s; gives back what arrived and was not begun."""
        assert self._task is not None
        try:
            await self._sub.unsubscribe()
        except nats.errors.Error as e:
            log.debug("unsubscribe: %r", e)
        try:
            async with asyncio.timeout(grace_s), self._busy:
                pass
        except TimeoutError:
            log.warning("a handler did not end within %s s and is cancelled", grace_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while not self._arrived.empty():
            raw = self._arrived.get_nowait()
            if raw is not None and _status(raw) is None:
                await raw.nak()

    async def _run(self) -> None:
        while True:
            try:
                raw = await self._pull()
                if raw is not None:
                    async with self._busy:
                        await self._process(raw)
            except (TimeoutError, OSError, nats.errors.Error) as e:
                # The connection went away under an ack or a pull; the message will come again.
                log.info("bus lane: %r", e)
                await asyncio.sleep(_RETRY_S)
            except Exception:
                log.exception("bus lane failed")
                await asyncio.sleep(_RETRY_S)

    async def _pull(self) -> Msg | None:
        """The next message, or None when it is time to pull again."""
        if self._arrived.empty():
            ask = {"batch": 1, "expires": int(_PULL_EXPIRES_S * 1e9), "idle_heartbeat": int(_PULL_HEARTBEAT_S * 1e9)}
            await self._nc.publish(self._subject, json.dumps(ask).encode(), self._inbox)
        while True:
            async with asyncio.timeout(2 * _PULL_HEARTBEAT_S + 1):
                raw = await self._arrived.get()
            if raw is None:
                return None
            status = _status(raw)
            if status is None:
                return raw
            if status == _IDLE:
                continue
            if status not in _NO_MESSAGES:
                await asyncio.sleep(_RETRY_S)
                await self._recover()
            return None


def _status(raw: Msg) -> str | None:
    """The code of a status message of the server; None for a real message."""
    return None if raw.reply.startswith("$JS.ACK.") else (raw.headers or {}).get("Status", "")


def _message_of(raw: Msg, redelivery: Redelivery) -> Message:
    headers = dict(raw.headers or {})
    deliveries = raw.metadata.num_delivered or 1
    wait_s = redelivery.wait_s(deliveries)
    return Message(
        data=raw.data,
        subject=raw.subject,
        msg_id=headers.get("Nats-Msg-Id", ""),
        headers=headers,
        deliveries=deliveries,
        retry_in_s=None if redelivery.is_last(deliveries, poison=False) else wait_s,
        poison_retry_in_s=None if redelivery.is_last(deliveries, poison=True) else wait_s,
    )
