"""Reading a log back: what fits the chain but not the engine, and what is still being written."""

import asyncio
import logging

import pytest
from anneal_core import chain
from anneal_core.chain import Event
from anneal_runtime.errors import DataLoss
from anneal_supervisor.history import stored_state

from tests.unit.core.world import World, item
from tests.unit.supervisor.test_driver import Store, run_up_to, supervised


def finished() -> World:
    world = World(items=[item("a")])
    world.create()
    world.run()
    return world


def chained_anew(log: list[Event]) -> list[Event]:
    """The same events under a chain of their own: what somebody leaves who rewrites a log with care."""
    fresh: list[Event] = []
    for event in log:
        prev = fresh[-1].hash if fresh else chain.GENESIS
        fields = event.model_dump(exclude={"seq", "prev_hash", "hash"})
        fresh.append(chain.link(seq=len(fresh) + 1, prev_hash=prev, **fields))
    return fresh


async def test_the_stored_log_gives_the_state_of_the_run() -> None:
    world = finished()
    assert await stored_state(Store(world.log), "run-1") == world.state  # type: ignore[arg-type]


async def test_a_rewritten_log_with_a_chain_of_its_own_is_found_where_it_does_not_follow() -> None:
    log = finished().log
    twice = next(n for n, e in enumerate(log, start=1) if e.type == "command_finished")
    forged = chained_anew([*log[:twice], *log[twice - 1 :]])
    with pytest.raises(DataLoss, match=f"damaged: event {twice + 1} does not follow from those before it") as caught:
        await stored_state(Store(forged), "run-1")  # type: ignore[arg-type]
    assert caught.value.retryable is False


async def test_a_log_whose_last_event_was_exchanged_is_found() -> None:
    store = Store(finished().log)
    head = await store.head("run-1")
    store.log = chained_anew([*store.log[:-1], store.log[-1].model_copy(update={"at": 1.0})])

    async def as_written(run_id: str) -> object:
        return head

    store.head = as_written  # type: ignore[method-assign, assignment]
    with pytest.raises(DataLoss, match=f"event {head.seq} is not the one that was written"):
        await stored_state(store, "run-1")  # type: ignore[arg-type]


async def test_a_log_that_grows_while_it_is_read_is_no_damage() -> None:
    store = Store(finished().log)
    whole = store.log
    store.log = whole[:4]
    head = await store.head("run-1")
    store.log = whole

    async def before(run_id: str) -> object:
        return head

    store.head = before  # type: ignore[method-assign, assignment]
    assert (await stored_state(store, "run-1")).ended  # type: ignore[arg-type]


async def test_a_run_with_a_damaged_log_is_not_driven_on(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(run_up_to("apply").log)
    store.log[3] = store.log[3].model_copy(update={"at": 1.0})
    store.claims = [("run-1", 2)]
    written = list(store.log)
    with caplog.at_level(logging.WARNING):
        async with supervised(store) as supervisor:
            await asyncio.sleep(0.05)
            with pytest.raises(DataLoss, match="event 4 was changed"):
                await supervisor.state("run-1")
    assert store.log == written
    (record,) = [r for r in caplog.records if r.message == "run set aside"]
    assert vars(record)["reason"] == "data_loss"
