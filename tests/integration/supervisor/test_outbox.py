"""What a commit leaves behind leaves the house: at once, in the end in any case, and never before the commit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
import pytest_asyncio
from anneal_contracts.work import EVENT_STREAM, WORK_STREAM
from anneal_core.chain import Event
from anneal_runtime.bus import EVENTS, WORK, Bus
from anneal_runtime.embedded import EmbeddedNats
from anneal_runtime.errors import StaleToken
from anneal_runtime.testing import TOKEN, eventually
from anneal_supervisor.news import announcement
from anneal_supervisor.outbox import Outbox
from anneal_supervisor.store import Outgoing, Replica
from anneal_supervisor.store_postgres import PostgresStore

from tests.unit.core.world import World, item


def work(n: int) -> Outgoing:
    return Outgoing(subject="anneal.work.action.apply", msg_id=f"command-{n}", data=b"%d" % n)


def news(n: int, run_id: str = "run-1") -> Outgoing:
    return announcement(run_id, n, n)


@pytest_asyncio.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    one = await PostgresStore.open(postgres_dsn)
    yield one
    await one.close()


@pytest_asyncio.fixture
async def bus(nats_server: EmbeddedNats) -> AsyncIterator[Bus]:
    one = await Bus.connect(nats_server.url, TOKEN, name="test")
    await one.ensure_streams(WORK, EVENTS)
    yield one
    await one.close(grace_s=0.1)


async def held(bus: Bus, stream: str) -> int:
    """Messages in a stream."""
    found: int = (await bus._js.stream_info(stream)).state.messages
    return found


@contextlib.asynccontextmanager
async def running(store: PostgresStore, bus: Bus) -> AsyncIterator[Outbox]:
    outbox = Outbox(store, bus)
    task = asyncio.create_task(outbox.run())
    yield outbox
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def left(store: PostgresStore) -> list[str]:
    return [o.msg_id for _, o in await store.take_outgoing(100, ())]


async def test_work_and_news_are_sent_once_and_their_rows_removed(store: PostgresStore, bus: Bus) -> None:
    async with running(store, bus) as outbox:
        for n in range(5):
            outbox.send(await store.put_outgoing([work(n), news(n)]))
        await eventually(lambda: _told(bus, works=5))

        async def empty() -> bool:
            return not await left(store)

        await eventually(empty)


async def _told(bus: Bus, *, works: int) -> bool:
    """All work is there, and of the news as many messages as came together."""
    return await held(bus, WORK_STREAM) == works and 1 <= await held(bus, EVENT_STREAM) <= works


async def _sent(bus: Bus, works: int, told: int) -> bool:
    return (await held(bus, WORK_STREAM), await held(bus, EVENT_STREAM)) == (works, told)


async def test_what_a_dead_process_left_is_sent_by_the_next(store: PostgresStore, bus: Bus) -> None:
    await store.put_outgoing([work(1), news(1), work(2)])
    async with running(store, bus):
        await eventually(lambda: _sent(bus, 2, 1))


async def test_what_was_sent_twice_is_there_once(store: PostgresStore, bus: Bus) -> None:
    rows = await store.put_outgoing([work(1)])
    async with running(store, bus) as one, running(store, bus) as other:
        one.send(rows)
        other.send(rows)
        await eventually(lambda: _sent(bus, 1, 0))
        await asyncio.sleep(0.3)
        assert await held(bus, WORK_STREAM) == 1


async def test_rows_wait_for_a_bus_that_is_away(
    store: PostgresStore, bus: Bus, nats_server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anneal_runtime.bus._PUBLISH_TIMEOUT_S", 0.3)
    async with running(store, bus) as outbox:
        await nats_server.stop()
        outbox.send(await store.put_outgoing([work(1), news(1)]))
        await asyncio.sleep(0.6)
        assert await left(store) == ["command-1", "run-1/1"]
        await nats_server.start()
        await eventually(lambda: _sent(bus, 1, 1), timeout=10)


async def test_what_was_sent_is_removed_when_the_process_ends(store: PostgresStore, bus: Bus) -> None:
    async with running(store, bus) as outbox:
        outbox.send(await store.put_outgoing([work(1)]))
        await eventually(lambda: _sent(bus, 1, 0))
        await eventually(lambda: outbox._sent)
    assert not await left(store)


def log_of_a_run() -> Sequence[Event]:
    world = World(items=[item("a")])
    world.create()
    world.run()
    return world.log


async def test_events_and_messages_are_written_together_with_the_head(store: PostgresStore) -> None:
    log = log_of_a_run()
    await store.create_run("key", b"request", log[:1], b"summary")
    rows = await store.append(log[1:4], [work(1), news(4)], token=0, summary=None, ended=False)
    assert [o.msg_id for _, o in rows] == ["command-1", "run-1/4"]
    assert await store.events("run-1") == list(log[:4])
    assert (await store.head("run-1")).hash == log[3].hash
    assert sorted(rows) == sorted(await store.take_outgoing(10, ()))
    assert await store.take_outgoing(10, [row_id for row_id, _ in rows]) == []
    assert await store.summaries(1) == [b"summary"]


async def test_nothing_is_written_under_a_token_that_is_no_longer_ours(store: PostgresStore) -> None:
    log = log_of_a_run()
    await store.create_run("key", b"request", log[:1], b"")
    await store.claim(Replica(place="other", address="other:1", life="1"), 60, 1, [])
    with pytest.raises(StaleToken):
        await store.append(log[1:2], [work(1)], token=0, summary=None, ended=False)
    assert len(await store.events("run-1")) == 1
    assert not await left(store)


async def test_nothing_is_written_where_the_log_went_on_already(store: PostgresStore, postgres_dsn: str) -> None:
    log = log_of_a_run()
    await store.create_run("key", b"request", log[:1], b"")
    await store.append(log[1:3], [], token=0, summary=None, ended=False)
    with pytest.raises(StaleToken):
        await store.append(log[2:4], [work(1)], token=0, summary=None, ended=False)
    assert (await store.head("run-1")).seq == 3
    assert not await left(store)
    conn = await asyncpg.connect(postgres_dsn)
    assert await conn.fetchval("SELECT count(*) FROM supervisor.run_events") == 3
    await conn.close()
