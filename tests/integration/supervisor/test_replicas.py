"""Several supervisors: runs are shared by lease, calls reach whoever drives the run, and the overtaken are refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal.supervisor.v1 import control_pb2 as ct
from anneal.supervisor.v1 import supervisor_pb2 as sv
from anneal.supervisor.v1.control_pb2_grpc import ControlServiceStub
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_core.chain import Event
from anneal_runtime.children import free_port
from anneal_runtime.errors import NotFound, StaleToken
from anneal_runtime.rpc import channel
from anneal_runtime.settings import load
from anneal_runtime.testing import eventually
from anneal_supervisor.app import SupervisorApp
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.store import Replica
from anneal_supervisor.store_postgres import PostgresStore

from tests.support import in_process
from tests.unit.core.world import World, item

if TYPE_CHECKING:
    from anneal.supervisor.v1.control_pb2_grpc import ControlServiceAsyncStub
    from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceAsyncStub

ONE = Replica(place="host/one:1", address="one:1", life="1")
OTHER = Replica(place="host/other:1", address="other:1", life="1")


@pytest_asyncio.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    one = await PostgresStore.open(postgres_dsn)
    yield one
    await one.close()


@pytest_asyncio.fixture
async def log(store: PostgresStore) -> list[Event]:
    """A run's first events, of which the first is stored."""
    world = World(items=[item("a")])
    world.create()
    world.run()
    await store.create_run("key", b"request", world.log[:1], b"")
    return world.log


async def test_a_run_is_one_replicas_until_its_lease_ends_and_the_other_is_told_when(
    store: PostgresStore, log: list[Event]
) -> None:
    assert (await store.claim(ONE, 0.5, 1, [])).runs == [("run-1", 1)]
    assert await store.driver_address("run-1") == "one:1"
    refused = await store.claim(OTHER, 60, 1, [])
    assert not refused.runs
    assert refused.next_s is not None
    assert 0 < refused.next_s <= 0.5
    await asyncio.sleep(refused.next_s + 0.05)
    assert await store.driver_address("run-1") == ""
    assert (await store.claim(OTHER, 60, 1, [])).runs == [("run-1", 2)]
    with pytest.raises(StaleToken):
        await store.append(log[1:2], [], token=1, summary=None, ended=False)
    assert await store.renew(ONE.owner, 60, ["run-1"]) == set()


async def test_whoever_has_a_replicas_place_next_takes_its_runs_back_without_waiting(
    store: PostgresStore, log: list[Event]
) -> None:
    await store.claim(ONE, 60, 1, [])
    again = replace(ONE, life="2")
    assert (await store.claim(again, 60, 1, [])).runs == [("run-1", 2)]
    assert (await store.claim(again, 60, 1, [])).runs == []
    with pytest.raises(StaleToken):
        await store.append(log[1:2], [], token=1, summary=None, ended=False)


@pytest.mark.parametrize("place", ["host/one:", "host/one:11", "host/one", "%"])
async def test_a_place_that_only_looks_like_another_takes_nothing(
    store: PostgresStore, log: list[Event], place: str
) -> None:
    await store.claim(ONE, 60, 1, [])
    assert not (await store.claim(Replica(place=place, address="x:1", life="2"), 60, 1, [])).runs


async def test_an_ended_run_is_driven_by_nobody(store: PostgresStore, log: list[Event]) -> None:
    await store.claim(ONE, 60, 1, [])
    assert await store.addresses() == ["one:1"]
    await store.append(log[1:], [], token=1, summary=None, ended=True)
    assert await store.driver_address("run-1") == ""
    assert await store.addresses() == []


@dataclass
class Pair:
    """Two supervisors; workers and evaluator know the second alone. Runs are made at the first."""

    stubs: "tuple[SupervisorServiceAsyncStub, SupervisorServiceAsyncStub]"
    controls: "tuple[ControlServiceAsyncStub, ControlServiceAsyncStub]"
    apps: tuple[SupervisorApp, SupervisorApp]

    async def run(self, *items: str) -> str:
        spec = sv.RunSpec(skill="stub", target="box", profile="few", item_ids=items)
        return (await self.stubs[0].CreateRun(sv.CreateRunRequest(idempotency_key="run", spec=spec))).run_id

    async def state(self, replica: int, run_id: str) -> str:
        return (await self.stubs[replica].GetRun(sv.GetRunRequest(run_id=run_id))).run.state

    async def finishes(self, run_id: str, replica: int) -> None:
        async def finished() -> bool:
            return await self.state(replica, run_id) == "finished"

        await eventually(finished, timeout=40)

    async def drives(self, replica: int, run_id: str) -> None:
        domain = self.apps[replica]._domain
        assert domain is not None
        await eventually(lambda: domain.drives(run_id), timeout=20)


@pytest_asyncio.fixture
async def pair(postgres_dsn: str, nats_url: str, auth_token: str, tmp_path: Path) -> AsyncIterator[Pair]:
    environ = in_process.environment(postgres_dsn, nats_url, auth_token, tmp_path)
    first = f"127.0.0.1:{free_port()}"
    mine = {**in_process.told(environ, "supervisor"), "ANNEAL_SUPERVISOR_LISTEN": first, "ANNEAL_RUN_LEASE_S": "2"}
    async with AsyncExitStack() as stack:
        one = SupervisorApp(load(SupervisorSettings, mine))
        rest = await stack.enter_async_context(in_process.services(environ))
        await one.start()
        stack.push_async_callback(one.stop)
        addresses = (first, rest.addresses["supervisor"], rest.addresses["checkpoint"])
        channels = [channel(a, auth_token) for a in addresses]
        for conn in channels:
            stack.push_async_callback(conn.close)
        target = cp.Target(name="box", driver="nspawn", machine="box")
        await CheckpointServiceStub(channels[2]).AddTarget(cp.AddTargetRequest(idempotency_key="add", target=target))
        stubs = SupervisorServiceStub(channels[0]), SupervisorServiceStub(channels[1])
        yield Pair(stubs, (ControlServiceStub(channels[0]), ControlServiceStub(channels[1])), (one, rest.supervisor))


async def test_results_that_reach_another_replica_are_handed_on_to_the_runs_driver(pair: Pair) -> None:
    run_id = await pair.run("kept-000", "second-016")
    await pair.drives(0, run_id)
    # The worker knows the second replica alone, and every result of this run passed through it.
    await pair.finishes(run_id, replica=1)
    assert await pair.state(0, run_id) == "finished"


async def test_people_may_ask_any_replica_about_any_run(pair: Pair) -> None:
    run_id = await pair.run("kept-000")
    await pair.drives(0, run_id)
    paused = await pair.controls[1].PauseRun(ct.PauseRunRequest(idempotency_key="p", run_id=run_id, by="me"))
    assert paused.state
    answer = ct.AnswerApprovalRequest(idempotency_key="a", id=f"{run_id}/kept-000/1", by="me", action_hash="0")
    with pytest.raises(NotFound, match="no approval"):
        await pair.controls[1].AnswerApproval(answer)
    assert not (await pair.controls[1].ListApprovals(ct.ListApprovalsRequest())).approvals
    await pair.controls[1].ResumeRun(ct.ResumeRunRequest(idempotency_key="r", run_id=run_id, by="me"))
    cancel = sv.CancelRunRequest(idempotency_key="c", run_id=run_id, reason="enough")
    await pair.stubs[1].CancelRun(cancel)

    async def cancelled() -> bool:
        return await pair.state(1, run_id) == "cancelled"

    await eventually(cancelled, timeout=20)


async def test_a_replica_that_is_told_to_end_leaves_its_runs_to_the_other(pair: Pair) -> None:
    run_id = await pair.run("kept-000", "second-016")
    await pair.drives(0, run_id)
    await pair.apps[0].stop()
    await pair.drives(1, run_id)
    await pair.finishes(run_id, replica=1)
