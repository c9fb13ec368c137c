"""Watching goes on where the gateway goes away and comes back, and ends where it stays away."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from anneal.common.v1.common_pb2 import Event
from anneal_cli.gateway import Gateway
from anneal_cli.watch.follow import Look, doing_of, looks
from anneal_runtime.children import free_port
from anneal_runtime.errors import NotFound, Unavailable
from anneal_runtime.rpc import channel
from anneal_runtime.testing import eventually

from tests.support.fake_gateway import TOKEN, FakeGateway, serving
from tests.support.sample_run import sample_run

RUN = sample_run().run_id


async def all_looks(source: AsyncIterator[Look]) -> list[Look]:
    return [look async for look in source]


def event(kind: str = "apply") -> Event:
    return Event(type="command_issued", payload_json=json.dumps({"kind": kind}).encode())


async def test_watching_survives_a_gateway_that_restarts(gateway: FakeGateway) -> None:
    port = free_port()
    gateway.put(sample_run(done=0.2), event())
    seen: list[Look] = []
    async with channel(f"127.0.0.1:{port}", TOKEN, timeout_s=2, retry=False) as conn:

        async def watch() -> None:
            async for look in looks(Gateway(f"127.0.0.1:{port}", conn), RUN):
                seen.append(look)

        with serving(gateway, port):
            task = asyncio.create_task(watch())
            await eventually(lambda: bool(seen and seen[-1].doing), 10)
        await eventually(lambda: bool(seen[-1].trouble), 10)
        assert seen[-1].run.run_id == RUN
        gateway.put(sample_run(done=0.6), event("evaluate"))
        with serving(gateway, port):
            await eventually(lambda: not seen[-1].trouble and seen[-1].doing == "evaluating", 10)
            gateway.put(sample_run(), Event(type="run_ended"))
            await asyncio.wait_for(task, 10)
    assert seen[-1].run.state == "finished"
    # Behind the last event that had come: none is told twice.
    assert gateway.watched_after[-1] >= 1
    changed = [item for look in seen for item in look.changed]
    assert len(set(changed)) == 250


async def test_a_gateway_that_stays_away_ends_the_watching(gateway: FakeGateway) -> None:
    port = free_port()
    async with channel(f"127.0.0.1:{port}", TOKEN, timeout_s=2, retry=False) as conn:
        with pytest.raises(Unavailable):
            await all_looks(looks(Gateway("gw", conn), RUN, give_up_s=0.5))


async def test_a_run_that_does_not_exist_is_told_at_once(gateway: FakeGateway, address: str) -> None:
    async with channel(address, TOKEN) as conn:
        with pytest.raises(NotFound):
            await all_looks(looks(Gateway(address, conn), "nope"))


async def test_at_most_five_looks_a_second(gateway: FakeGateway, address: str) -> None:
    gateway.put(sample_run(done=0.1))
    seen = 0
    async with channel(address, TOKEN) as conn:

        async def busy() -> None:
            for _ in range(150):
                gateway.put(sample_run(done=0.1), event())
                await asyncio.sleep(0.01)
            gateway.put(sample_run(), Event(type="run_ended"))

        task = asyncio.create_task(busy())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async for _ in looks(Gateway(address, conn), RUN):
            seen += 1
        took = loop.time() - begun
        await task
    assert seen <= took * 5 + 2


def test_what_the_engine_is_at_is_told_in_words() -> None:
    assert doing_of(event("apply"), "") == "applying"
    assert doing_of(event("brand_new"), "") == "brand_new"
    assert doing_of(Event(type="item_closed"), "applying") == "applying"
    assert doing_of(Event(type="command_issued", payload_json=b"{"), "applying") == "applying"
