"""The bus on a real NATS: at least once, in time, and never lost to a restart."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from anneal_runtime.bus import EVENTS, WORK, Bus, Message, QueueFigures, Redelivery, StreamSpec
from anneal_runtime.bus_consumer import Consumer
from anneal_runtime.children import free_port
from anneal_runtime.embedded import EmbeddedNats
from anneal_runtime.errors import AnnealError, Crashed, DoerDied, FailedPrecondition, InvalidArgument, Unavailable
from anneal_runtime.testing import TOKEN, eventually
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

SUBJECT = "anneal.work.action.apply"
SOON = Redelivery(waits_s=(0.05, 0.05, 0.05))


@pytest_asyncio.fixture
async def bus(nats_server: EmbeddedNats) -> AsyncIterator[Bus]:
    one = await Bus.connect(nats_server.url, TOKEN, name="test")
    await one.ensure_streams(WORK, EVENTS)
    yield one
    await one.close(grace_s=0.1)


class Work:
    """A handler that notes what it got and fails as told."""

    def __init__(self, *failures: Exception) -> None:
        self.seen: list[Message] = []
        self.at: list[float] = []
        self.poisoned: list[tuple[bytes, AnnealError]] = []
        self.failures = list(failures)
        self.gate: asyncio.Event | None = None

    async def __call__(self, message: Message) -> None:
        self.seen.append(message)
        self.at.append(time.monotonic())
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)

    async def on_poison(self, message: Message, error: AnnealError) -> None:
        self.poisoned.append((message.data, error))

    def got(self, *data: bytes) -> Callable[[], bool]:
        return lambda: [m.data for m in self.seen] == list(data)


async def consume(bus: Bus, work: Work, **kwargs: Any) -> Consumer:
    given: dict[str, Any] = {"concurrency": 1, "redelivery": SOON, "on_poison": work.on_poison, **kwargs}
    return await bus.consume(
        stream=WORK.name, durable="apply", subjects=["anneal.work.action.>"], handler=work, **given
    )


async def left(bus: Bus) -> int:
    info: Any = await bus._js.stream_info(WORK.name)
    return int(info.state.messages)


async def test_a_message_arrives_whole_and_is_gone_after_the_handler(bus: Bus) -> None:
    work = Work()
    await consume(bus, work)
    assert await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(work.got(b"x"))
    message = work.seen[0]
    assert (message.subject, message.msg_id, message.deliveries) == (SUBJECT, "m1", 1)
    assert await eventually_left(bus, 0)


async def eventually_left(bus: Bus, count: int) -> bool:
    async def holds() -> bool:
        return await left(bus) == count

    await eventually(holds)
    return True


async def test_the_same_msg_id_is_stored_once(bus: Bus) -> None:
    assert [await bus.publish(SUBJECT, b"x", msg_id="m1") for _ in range(3)] == [True, False, False]
    assert await left(bus) == 1


async def test_a_waiting_consumer_gets_a_message_at_once(bus: Bus) -> None:
    work = Work()
    await consume(bus, work)
    waits = []
    for n in range(20):
        sent = time.monotonic()
        await bus.publish(SUBJECT, b"x", msg_id=f"m{n}")
        await eventually(lambda n=n: len(work.seen) == n + 1)  # type: ignore[misc]
        waits.append(work.at[n] - sent)
    assert sorted(waits)[10] < 0.02


async def test_a_consumer_sees_its_own_subjects_only(bus: Bus) -> None:
    work = Work()
    await consume(bus, work)
    await bus.publish("anneal.work.model.plan", b"other", msg_id="m1")
    await bus.publish(SUBJECT, b"mine", msg_id="m2")
    await eventually(work.got(b"mine"))
    assert await eventually_left(bus, 1)


async def test_lanes_bound_how_many_run_at_once(bus: Bus) -> None:
    work = Work()
    work.gate = asyncio.Event()
    for n in range(5):
        await bus.publish(SUBJECT, b"%d" % n, msg_id=f"m{n}")
    await consume(bus, work, concurrency=3)
    await eventually(lambda: len(work.seen) == 3)
    await asyncio.sleep(0.1)
    assert len(work.seen) == 3
    work.gate.set()
    await eventually(lambda: len(work.seen) == 5)


async def test_competing_consumers_share_the_work(bus: Bus, nats_server: EmbeddedNats) -> None:
    other = await Bus.connect(nats_server.url, TOKEN, name="other")
    first, second = Work(), Work()
    first.gate = second.gate = asyncio.Event()
    await consume(bus, first)
    await consume(other, second)
    for n in range(2):
        await bus.publish(SUBJECT, b"%d" % n, msg_id=f"m{n}")
    await eventually(lambda: (len(first.seen), len(second.seen)) == (1, 1))
    first.gate.set()
    await other.close()


async def test_a_retryable_failure_comes_again_after_the_backoff(bus: Bus) -> None:
    work = Work(Unavailable("not now"))
    await consume(bus, work, redelivery=Redelivery(waits_s=(0.2, 9.0)))
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(work.got(b"x", b"x"))
    assert [m.deliveries for m in work.seen] == [1, 2]
    assert 0.15 < work.at[1] - work.at[0] < 1
    assert await eventually_left(bus, 0)
    assert work.poisoned == []


async def test_a_message_that_keeps_failing_is_given_up_after_its_last_wait(bus: Bus) -> None:
    work = Work(*(Unavailable(f"no {n}") for n in range(9)))
    await consume(bus, work)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: work.poisoned)
    assert len(work.seen) == 4
    assert [(data, error.message) for data, error in work.poisoned] == [(b"x", "no 3")]
    assert await eventually_left(bus, 0)


@pytest.mark.parametrize(
    ("failure", "error"), [(InvalidArgument("bad"), InvalidArgument), (KeyError("house secret"), Crashed)]
)
async def test_a_failure_that_cannot_heal_is_poison_after_three_deliveries(
    bus: Bus, failure: Exception, error: type[AnnealError]
) -> None:
    work = Work(*[failure] * 9)
    await consume(bus, work)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: work.poisoned)
    assert type(work.poisoned[0][1]) is error
    assert "secret" not in work.poisoned[0][1].message
    assert [m.deliveries for m in work.seen] == [1, 2, 3]
    assert await eventually_left(bus, 0)


async def test_a_message_stays_until_its_poison_was_reported(bus: Bus) -> None:
    work = Work(*[InvalidArgument("bad")] * 9)
    reports: list[bytes] = []

    async def on_poison(message: Message, error: AnnealError) -> None:
        reports.append(message.data)
        if len(reports) == 1:
            raise Unavailable("the supervisor is away")

    await consume(bus, work, on_poison=on_poison)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: len(reports) == 2)
    assert await eventually_left(bus, 0)


async def test_a_message_whose_doers_died_each_time_is_not_run_again(bus: Bus, nats_server: EmbeddedNats) -> None:
    work, dying = Work(), Work()
    dying.gate = asyncio.Event()
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    for n in range(SOON.most):
        doer = await Bus.connect(nats_server.url, TOKEN, name="dying")
        await consume(doer, dying, ack_wait_s=0.2)
        await eventually(lambda n=n: len(dying.seen) == n + 1)  # type: ignore[misc]
        await doer._nc.close()
        await doer.close(grace_s=0)
    await consume(bus, work, ack_wait_s=0.2)
    await eventually(lambda: work.poisoned)
    assert work.seen == []
    assert isinstance(work.poisoned[0][1], DoerDied)


async def test_a_message_that_waits_for_its_next_delivery_holds_no_lane(bus: Bus) -> None:
    work = Work(Unavailable("not now"))
    await consume(bus, work, concurrency=1, redelivery=Redelivery(waits_s=(60.0,)))
    await bus.publish(SUBJECT, b"first", msg_id="m1")
    await bus.publish(SUBJECT, b"second", msg_id="m2")
    await eventually(work.got(b"first", b"second"), timeout=2)


async def test_heartbeats_go_on_while_poison_is_handed_over(bus: Bus) -> None:
    work, reports = Work(*[InvalidArgument("bad")] * 9), 0

    async def on_poison(message: Message, error: AnnealError) -> None:
        nonlocal reports
        reports += 1
        await asyncio.sleep(1.0)

    await consume(bus, work, concurrency=2, ack_wait_s=0.3, on_poison=on_poison)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    assert await eventually_left(bus, 0)
    assert (len(work.seen), reports) == (3, 1)


async def test_a_queue_tells_what_waits_what_is_under_way_and_what_came_again(bus: Bus) -> None:
    async def figures() -> QueueFigures:
        return await bus.queue(stream=WORK.name, durable="apply", subject="anneal.work.action.>")

    async def become(expected: QueueFigures) -> None:
        async def equal() -> bool:
            return await figures() == expected

        await eventually(equal)

    for n in range(5):
        await bus.publish(SUBJECT, b"%d" % n, msg_id=f"m{n}")
    await bus.publish("anneal.work.model.plan", b"of another class", msg_id="m9")
    assert await figures() == QueueFigures(depth=5)
    work = Work(Unavailable("not now"))
    await consume(bus, work, concurrency=2)
    await eventually(lambda: len(work.seen) == 6)
    await become(QueueFigures(idle=2))
    work.gate = asyncio.Event()
    work.failures = [Unavailable("not now")]
    for n in range(5, 8):
        await bus.publish(SUBJECT, b"%d" % n, msg_id=f"m{n}")
    await become(QueueFigures(depth=1, in_flight=2))
    work.gate.set()
    work.gate = asyncio.Event()

    async def one_came_again() -> bool:
        return (await figures()).redelivered == 1

    await eventually(one_came_again)
    work.gate.set()


async def test_a_long_handler_keeps_its_message(bus: Bus) -> None:
    work = Work()
    work.gate = asyncio.Event()
    await consume(bus, work, concurrency=2, ack_wait_s=0.3)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: work.seen)
    await asyncio.sleep(1.0)
    work.gate.set()
    assert await eventually_left(bus, 0)
    assert len(work.seen) == 1


async def test_a_dead_workers_message_goes_to_another(bus: Bus, nats_server: EmbeddedNats) -> None:
    dying = await Bus.connect(nats_server.url, TOKEN, name="dying")
    first, second = Work(), Work()
    first.gate = asyncio.Event()
    await consume(dying, first, ack_wait_s=0.5)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: first.seen)
    await dying._nc.close()
    await consume(bus, second, ack_wait_s=0.5)
    await eventually(second.got(b"x"))
    assert second.seen[0].deliveries == 2
    await dying.close(grace_s=0)


async def test_stopping_gives_a_running_handler_time_and_then_gives_its_message_back(
    bus: Bus, nats_server: EmbeddedNats
) -> None:
    first, second = Work(), Work()
    first.gate = asyncio.Event()
    consumer = await consume(bus, first)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: first.seen)
    await consumer.stop(grace_s=0.1)
    await consume(bus, second)
    begun = time.monotonic()
    await eventually(second.got(b"x"))
    assert time.monotonic() - begun < 2  # far below ack_wait


async def test_work_goes_on_after_a_restart_of_nats(bus: Bus, nats_server: EmbeddedNats) -> None:
    work = Work()
    work.gate = asyncio.Event()
    await consume(bus, work, concurrency=2)
    await bus.publish(SUBJECT, b"before", msg_id="m1")
    await eventually(lambda: work.seen)
    await nats_server.stop()
    await nats_server.start()
    work.gate.set()

    async def published() -> bool:
        try:
            return await bus.publish(SUBJECT, b"after", msg_id="m2")
        except Unavailable:
            return False

    await eventually(published)
    await eventually(work.got(b"before", b"after"))
    assert await eventually_left(bus, 0)


async def test_an_idle_consumer_goes_on_after_kill_9_of_nats(bus: Bus, nats_server: EmbeddedNats) -> None:
    work = Work()
    await consume(bus, work)
    await asyncio.sleep(0.05)
    os.kill(nats_server.pid, signal.SIGKILL)
    await eventually(lambda: not nats_server.pid)
    await nats_server.stop()
    await nats_server.start()
    await eventually(lambda: bus._nc.is_connected)
    await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(work.got(b"x"), timeout=3)


async def test_work_goes_on_when_nats_lost_its_whole_store(bus: Bus, nats_server: EmbeddedNats) -> None:
    work = Work()
    await consume(bus, work)
    await nats_server.stop()
    shutil.rmtree(nats_server.dir / "store")
    await nats_server.start()

    async def published() -> bool:
        try:
            return await bus.publish(SUBJECT, b"after", msg_id="m2")
        except Unavailable:
            return False

    await eventually(published, timeout=15)
    await eventually(work.got(b"after"))


async def test_publishing_with_no_server_is_unavailable_and_close_does_not_hang(
    bus: Bus, nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anneal_runtime.bus._PUBLISH_TIMEOUT_S", 0.2)
    await nats_server.stop()
    with pytest.raises(Unavailable):
        await bus.publish(SUBJECT, b"x", msg_id="m1")
    begun = time.monotonic()
    await bus.close()
    assert time.monotonic() - begun < 2


async def test_ensuring_streams_again_is_harmless_and_follows_changes(bus: Bus) -> None:
    await bus.ensure_streams(WORK, EVENTS)
    await bus.ensure_streams(StreamSpec(name="X", subjects=("x.>",), retention="limits", max_age_s=60))
    await bus.ensure_streams(StreamSpec(name="X", subjects=("x.>", "y.>"), retention="limits", max_age_s=30))
    config: Any = (await bus._js.stream_info("X")).config
    assert (config.subjects, config.max_age, config.duplicate_window) == (["x.>", "y.>"], 30, 30)
    with pytest.raises(FailedPrecondition, match="X"):
        await bus.ensure_streams(StreamSpec(name="X", subjects=("x.>",), retention="work"))


async def test_a_subject_without_a_stream_is_an_error(bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await bus.publish("nobody.listens", b"x", msg_id="m1")


async def test_a_wrong_token_and_no_server_are_unavailable_in_time(nats_server: EmbeddedNats) -> None:
    for url, token in ((nats_server.url, "wrong"), (f"nats://127.0.0.1:{free_port()}", TOKEN)):
        with pytest.raises(Unavailable):
            await Bus.connect(url, token, name="test", timeout_s=0.5)


async def test_the_trace_of_the_publisher_reaches_the_handler(bus: Bus) -> None:
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    traces: list[int] = []

    async def handler(message: Message) -> None:
        traces.append(trace.get_current_span().get_span_context().trace_id)

    await bus.consume(stream=WORK.name, durable="apply", subjects=[SUBJECT], handler=handler, concurrency=1)
    with trace.get_tracer("t").start_as_current_span("publisher") as span:
        await bus.publish(SUBJECT, b"x", msg_id="m1")
    await eventually(lambda: traces == [span.get_span_context().trace_id])
