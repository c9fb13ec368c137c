"""When a failed message comes again, on virtual time: the real consumer over a server that only keeps its promises."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from anneal_runtime.bus_consumer import Consumer, ConsumerSpec, Message
from anneal_runtime.errors import AnnealError, Crashed, DoerDied, Unavailable, Unreadable
from anneal_runtime.redelivery import Redelivery, crashed

pytestmark = pytest.mark.looptime(start=0)

ACK_WAIT_S = 6.0
EXACT = Redelivery(jitter=0.0)


@dataclass
class Server:
    """JetStream's side for one message: delivers, counts deliveries, and waits for an answer as long as ack_wait_s."""

    deliveries: int = 0
    beats: list[float] = field(default_factory=list)
    answer: tuple[str, float] = ("", 0.0)
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b"x"
    subject: str = "anneal.work.action.apply"

    @property
    def metadata(self) -> Any:
        return type("Metadata", (), {"num_delivered": self.deliveries})

    async def ack(self) -> None:
        self.answer = ("ack", 0.0)

    async def term(self) -> None:
        self.answer = ("term", 0.0)

    async def nak(self, delay: float = 0.0) -> None:
        self.answer = ("nak", delay)

    async def in_progress(self) -> None:
        self.beats.append(asyncio.get_running_loop().time())


class Handler:
    """Fails as told, and notes when it was called."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.at: list[float] = []
        self.given_up: list[tuple[float, AnnealError]] = []
        self.takes_s = 0.0

    async def __call__(self, message: Message) -> None:
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        if self.failures:
            raise self.failures.pop(0)

    async def on_poison(self, message: Message, error: AnnealError) -> None:
        self.given_up.append((asyncio.get_running_loop().time(), error))


async def deliver(handler: Handler, *, redelivery: Redelivery = EXACT, died: int = 0) -> Server:
    """Delivers one message until it is done with. died: earlier deliveries to processes that are no more."""
    spec = ConsumerSpec(
        stream="s", durable="d", subjects=(), concurrency=1, ack_wait_s=ACK_WAIT_S, redelivery=redelivery
    )
    consumer = Consumer(None, spec, handler, handler.on_poison, None)  # type: ignore[arg-type]
    server = Server(deliveries=died)
    while True:
        server.deliveries += 1
        await consumer._process(server)
        if server.answer[0] != "nak":
            return server
        await asyncio.sleep(server.answer[1])


async def test_a_failure_that_is_worth_it_comes_again_after_10_30_and_60_seconds() -> None:
    handler = Handler(*[Unavailable("away")] * 3)
    server = await deliver(handler)
    assert handler.at == [0, 10, 40, 100]
    assert (server.answer[0], handler.given_up) == ("ack", [])


async def test_after_the_last_wait_the_message_is_given_up_with_the_last_error() -> None:
    handler = Handler(*[Unavailable(f"away {n}") for n in range(9)])
    server = await deliver(handler)
    assert handler.at == [0, 10, 40, 100]
    assert [(at, error.message) for at, error in handler.given_up] == [(100, "away 3")]
    assert server.answer[0] == "term"


@pytest.mark.parametrize("failure", [Unreadable("not a command"), ZeroDivisionError("a defect")])
async def test_poison_is_given_up_after_three_deliveries(failure: Exception) -> None:
    handler = Handler(*[failure] * 9)
    server = await deliver(handler)
    assert handler.at == [0, 10, 40]
    assert [at for at, _ in handler.given_up] == [40]
    assert server.answer[0] == "term"


async def test_a_poisonous_third_delivery_counts_the_failures_before_it() -> None:
    handler = Handler(Unavailable("away"), Unavailable("away"), KeyError("x"), KeyError("x"))
    await deliver(handler)
    assert handler.at == [0, 10, 40]
    assert isinstance(handler.given_up[0][1], Crashed)


async def test_a_message_whose_doers_died_four_times_is_given_up_without_another_try() -> None:
    handler = Handler()
    server = await deliver(handler, died=4)
    assert (handler.at, server.answer[0]) == ([], "term")
    assert isinstance(handler.given_up[0][1], DoerDied)
    again = Handler()
    assert (await deliver(again, died=3)).answer[0] == "ack"
    assert again.at == [0]


async def test_waits_differ_by_a_fifth_at_most_and_do_differ() -> None:
    waits = {
        Redelivery().wait_s(deliveries) / base for deliveries, base in ((1, 10), (2, 30), (3, 60)) for _ in range(99)
    }
    assert len(waits) > 50
    assert all(0.8 <= share <= 1.2 for share in waits)
    assert min(waits) < 0.9 < 1.1 < max(waits)


async def test_a_message_says_beforehand_when_it_would_come_again() -> None:
    seen: list[tuple[float | None, float | None]] = []

    class Looking(Handler):
        async def __call__(self, message: Message) -> None:
            seen.append((message.retry_in_s, message.poison_retry_in_s))
            await super().__call__(message)

    await deliver(Looking(*[Unavailable("away")] * 9))
    assert seen == [(10, 10), (30, 30), (60, None), (None, None)]


async def test_long_work_is_told_every_third_of_the_time_that_the_server_waits() -> None:
    handler = Handler()
    handler.takes_s = 11.0
    server = await deliver(handler)
    assert server.beats == [2, 4, 6, 8, 10]


async def test_a_crash_is_told_by_kind_and_place_and_never_by_its_text() -> None:
    def broken() -> None:
        raise KeyError("house secret")

    try:
        broken()
    except KeyError as e:
        told = crashed(e).message
    assert told.startswith("KeyError at test_redelivery.py:")
    assert "broken" in told
    assert "secret" not in told
