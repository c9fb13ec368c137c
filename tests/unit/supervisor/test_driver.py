"""What the shell around the engine promises when the database or the timing is unkind."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import reduce
from typing import Any

import pytest
from anneal_contracts.work import (
    Applied,
    Failed,
    Result,
    Snapshotted,
)
from anneal_core.chain import Event
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.state import Pending, RunState
from anneal_runtime import rpc_wire
from anneal_runtime.errors import NotFound, StaleToken, Unavailable
from anneal_supervisor.domain import Supervisor
from anneal_supervisor.driver import RunDriver
from anneal_supervisor.hub import Hub
from anneal_supervisor.store import Claimed, Head, Left, Outgoing, Replica

from tests.unit.core.world import World, item


class Clock:
    def now(self) -> float:
        return 1_700_000_001.0

    def monotonic(self) -> float:
        return 0.0


class Store:
    """A log in memory whose reads can be slow and whose writes can fail."""

    def __init__(self, log: Sequence[Event]) -> None:
        self.log = list(log)
        self.read_s = 0.0
        self.failures = 0
        self.batches: list[list[Event]] = []
        self.claims: list[tuple[str, int]] = []
        self.held: list[str] = []

    async def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> list[Event]:
        await asyncio.sleep(self.read_s)
        return [e for e in self.log if e.seq > after][:limit]

    async def append(self, events: Sequence[Event], outgoing: Sequence[Outgoing], **rest: Any) -> Sequence[Left]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the database is being started again")
        if events[0].seq != len(self.log) + 1:
            raise StaleToken("continued by another")
        self.log += events
        self.batches.append(list(events))
        return list(enumerate(outgoing))

    async def put_outgoing(self, outgoing: Sequence[Outgoing]) -> Sequence[Left]:
        return list(enumerate(outgoing))

    async def head(self, run_id: str) -> Head:
        return Head(seq=len(self.log), hash=self.log[-1].hash, ended=False)

    async def renew(self, owner: str, lease_s: float, run_ids: Sequence[str]) -> set[str]:
        return set(run_ids)

    async def claim(self, replica: Replica, lease_s: float, limit: int, held: Sequence[str]) -> Claimed:
        self.held = list(held)
        taken, self.claims = self.claims, []
        return Claimed(runs=taken)

    async def let_go(self, owner: str) -> None: ...


class Dispatcher:
    """Messages go nowhere; snapshots take a moment; everything else of our own fails for good."""

    async def message(self, state: RunState, pending: Pending) -> Outgoing:
        return Outgoing(subject="s", msg_id=pending.command_id, data=b"")

    async def direct(self, state: RunState, pending: Pending) -> Result:
        await asyncio.sleep(0.02)
        if pending.kind == "snapshot":
            return Snapshotted(command_id=pending.command_id, generation=pending.generation)
        return Failed(command_id=pending.command_id, reason="x", message="")

    async def renew_target(self, state: RunState, key: str) -> None: ...


def run_up_to(kind: str) -> World:
    """A run whose log ends with this command given out."""
    world = World(items=[item("a")])
    world.create()
    while True:
        while payloads := decide(world.state, world.now):
            for payload in payloads:
                world.append(payload)
        if next(iter(world.state.pending.values())).kind == kind:
            return world
        world.answer_one()


@asynccontextmanager
async def supervised(store: Store) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        store=store,  # type: ignore[arg-type]
        dispatcher=Dispatcher(),  # type: ignore[arg-type]
        clock=Clock(),
        hub=Hub(lambda left: None),
        max_runs=4,
        lease_s=15,
    )
    driving = asyncio.create_task(supervisor.drive(Replica(place="here", address="here:1", life="1")))
    yield supervisor
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)
    await supervisor.stop()


async def test_a_result_that_comes_while_the_log_is_read_is_taken() -> None:
    world = run_up_to("apply")
    (pending,) = world.state.pending.values()
    store = Store(world.log)
    store.read_s, store.claims = 0.2, [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        result = Applied(command_id=pending.command_id, state="applied")
        assert await supervisor.report("run-1", pending.command_id, result)


async def test_the_result_of_a_direct_call_survives_a_database_that_is_away_for_a_moment() -> None:
    world = run_up_to("snapshot")
    store = Store(world.log)
    store.failures = 2
    driver = RunDriver(
        run_id="run-1",
        token=1,
        store=store,  # type: ignore[arg-type]
        dispatcher=Dispatcher(),  # type: ignore[arg-type]
        clock=Clock(),
        published=lambda run_id, left: None,
    )
    driving = asyncio.create_task(driver.run())
    for _ in range(100):
        await asyncio.sleep(0.02)
        if driver.state.generation == 0:
            break
    assert driver.state.generation == 0
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)


async def test_a_replica_does_not_claim_the_runs_that_it_drives() -> None:
    store = Store(run_up_to("apply").log)
    store.claims = [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        supervisor._look.set()
        await asyncio.sleep(0.05)
        assert store.held == ["run-1"]


async def test_a_driver_that_ends_late_leaves_its_successor_alone() -> None:
    store = Store(run_up_to("apply").log)
    store.claims = [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        first = supervisor._tasks["run-1"]
        supervisor._take("run-1", 3)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert "run-1" in supervisor._drivers
        with pytest.raises(asyncio.InvalidStateError):
            supervisor._tasks["run-1"].exception()


async def test_a_result_and_all_that_follows_from_it_are_one_commit() -> None:
    world = run_up_to("apply")
    (pending,) = world.state.pending.values()
    store = Store(world.log)
    store.claims = [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        assert await supervisor.report(
            "run-1", pending.command_id, Applied(command_id=pending.command_id, state="applied")
        )
        (batch,) = store.batches
        assert [e.type for e in batch] == ["command_finished", "command_issued"]
        assert [e.actor for e in batch] == ["worker", "engine"]


async def test_what_follows_from_a_result_has_its_own_time_and_not_that_of_the_call_which_handed_it_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[float | None] = []

    async def direct(self: Dispatcher, state: RunState, pending: Pending) -> Result:
        left.append(rpc_wire.deadline.get())
        return Failed(command_id=pending.command_id, reason="x", message="")

    monkeypatch.setattr(Dispatcher, "direct", direct)
    world = run_up_to("apply")
    (pending,) = world.state.pending.values()
    store = Store(world.log)
    store.claims = [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        call = rpc_wire.deadline.set(asyncio.get_running_loop().time() + 1)
        lost = Applied(command_id=pending.command_id, state="unreachable")
        assert await supervisor.report("run-1", pending.command_id, lost)
        rpc_wire.deadline.reset(call)
        await asyncio.sleep(0.05)
    assert left
    assert set(left) == {None}


async def test_a_result_is_not_lost_with_a_command_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Dispatcher, state: RunState, pending: Pending) -> Outgoing:
        raise NotFound("the script is gone")

    world = run_up_to("apply")
    (pending,) = world.state.pending.values()
    store = Store(world.log)
    store.claims = [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        monkeypatch.setattr(Dispatcher, "message", fails)
        assert await supervisor.report(
            "run-1", pending.command_id, Applied(command_id=pending.command_id, state="applied")
        )
        (batch,) = store.batches
        assert [e.type for e in batch] == ["command_finished"]


async def test_the_state_in_hand_is_the_one_that_the_stored_log_gives() -> None:
    world = run_up_to("apply")
    (pending,) = world.state.pending.values()
    store = Store(world.log)
    store.claims = [("run-1", 2)]
    async with supervised(store) as supervisor:
        await asyncio.sleep(0.05)
        applied = Applied(command_id=pending.command_id, state="applied", took_s=0.1, output="done\n")
        assert await supervisor.report("run-1", pending.command_id, applied)
        driver = supervisor._drivers["run-1"]
        assert driver.state.seq == len(world.log) + 2
        assert driver.state == reduce(evolve, store.log, RunState())
