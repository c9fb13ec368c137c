"""Forks over real gRPC, Postgres and NATS: what is written, what checkpoint is asked for, and what is refused."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1 import checkpoint_pb2_grpc as cp_grpc
from anneal.supervisor.v1 import control_pb2 as ct
from anneal.supervisor.v1.control_pb2_grpc import ControlServiceStub
from anneal.supervisor.v1.supervisor_pb2 import GetRunRequest, ReadEventsRequest, VerifyRunRequest
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_contracts.canonical import canonical_json, sha256_hex
from anneal_contracts.facts import Outcome
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.chain import Event
from anneal_runtime import rpc
from anneal_runtime.embedded import EmbeddedNats
from anneal_runtime.errors import (
    AlreadyExists,
    AnnealError,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    Leased,
    NotFound,
)
from anneal_runtime.settings import load
from anneal_runtime.testing import TOKEN
from anneal_runtime.testing import eventually as _eventually
from anneal_supervisor.app import SupervisorApp
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.store_postgres import PostgresStore
from anneal_supervisor.view import run_message

from tests.unit.core.world import World, item

NOBODY = "127.0.0.1:1"
eventually = partial(_eventually, timeout=30)


@dataclass
class Checkpoint(cp_grpc.CheckpointServiceServicer):
    """One target with saved states of one run. asked: what was asked for, in order."""

    kept: list[int] = field(default_factory=lambda: [0, 1])
    leased_by: str = ""
    can_snapshot: bool = True
    asked: list[Any] = field(default_factory=list)

    async def GetTarget(self, request: cp.GetTargetRequest, context: Any) -> cp.GetTargetResponse:
        if request.name != "box":
            raise NotFound("no such target", field="target")
        target = cp.Target(name="box", driver="nspawn", can_snapshot=self.can_snapshot, leased_by=self.leased_by)
        return cp.GetTargetResponse(target=target)

    async def ListGenerations(self, request: cp.ListGenerationsRequest, context: Any) -> cp.ListGenerationsResponse:
        kept = self.kept if request.run_id == "run-1" else []
        return cp.ListGenerationsResponse(generations=[cp.Generation(generation=g) for g in kept])

    async def AcquireLease(self, request: cp.AcquireLeaseRequest, context: Any) -> cp.AcquireLeaseResponse:
        self.asked.append(request)
        target = cp.Target(name="box", driver="nspawn", host="h", port=22, can_snapshot=True)
        return cp.AcquireLeaseResponse(fencing_token=8, target=target)

    async def Restore(self, request: cp.RestoreRequest, context: Any) -> cp.RestoreResponse:
        self.asked.append(request)
        return cp.RestoreResponse(restored=True)


@dataclass
class Place:
    control: Any
    runs: Any
    checkpoint: Checkpoint
    log: list[Event]
    world: World

    async def fork(self, seq: int = 0, *, key: str = "k", set_: Mapping[str, str] | None = None, **fields: Any) -> str:
        facts = {"run_id": "run-1", "seq": seq or self.before("b"), "by": "ann", **fields}
        request = ct.ForkRunRequest(idempotency_key=key, set=set_ or {}, **facts)
        return str((await self.control.ForkRun(request)).run_id)

    def before(self, item_id: str) -> int:
        first = (e for e in self.log if e.type == "attempt_started" and e.payload["item_id"] == item_id)
        return next(first).seq - 1

    async def events(self, run_id: str) -> list[Any]:
        return [a.event async for a in self.runs.ReadEvents(ReadEventsRequest(run_id=run_id))]


@pytest_asyncio.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    one = await PostgresStore.open(postgres_dsn)
    yield one
    await one.close()


async def keep(store: PostgresStore, world: World) -> None:
    """Stores the run of a world as the supervisor would have."""
    summary = run_message(world.state, world.now, items=False).SerializeToString()
    await store.create_run(f"key {world.run_id}", b"request", world.log, summary)
    # Not by another append: a supervisor that looks at the moment may have claimed the run already.
    async with store.database.connection() as conn:
        await conn.execute("UPDATE runs SET ended = $2 WHERE run_id = $1", world.run_id, world.state.ended)


def finished(**spec: Any) -> World:
    world = World(items=[item("a"), item("b")], verdicts={("b", 1): Outcome.FAIL}, now=time.time() - 3600)
    world.create(**spec)
    world.run()
    return world


@pytest_asyncio.fixture
async def place(store: PostgresStore, postgres_dsn: str, nats_server: EmbeddedNats) -> AsyncIterator[Place]:
    """A supervisor that knows one finished run: a was mended in generation 1, b was given up."""
    world = finished()
    await keep(store, world)
    for text in ("fix a 0", "fix b 0"):
        await store.put_blob(sha256_hex(text.encode()), "text/x-shellscript", text.encode())
    async with AsyncExitStack() as stack:
        checkpoint = Checkpoint()  # type: ignore[abstract]  # it answers only what a fork asks
        name = "anneal.checkpoint.v1.CheckpointService"
        register = cp_grpc.add_CheckpointServiceServicer_to_server
        server = await rpc.serve(
            listen="127.0.0.1:0", token=TOKEN, services=[(name, lambda s: register(checkpoint, s))]
        )
        stack.push_async_callback(server.stop, 0)
        environ = {
            "ANNEAL_POSTGRES_DSN": postgres_dsn,
            "ANNEAL_NATS_URL": nats_server.url,
            "ANNEAL_AUTH_TOKEN": TOKEN,
            "ANNEAL_CHECKPOINT_ADDR": f"127.0.0.1:{server.port}",
            "ANNEAL_MEMORY_ADDR": NOBODY,
            "ANNEAL_EVALUATOR_ADDR": NOBODY,
            "ANNEAL_SHUTDOWN_GRACE_S": "0.2",
            "ANNEAL_SUPERVISOR_MAX_STEPS": "500",
        }
        app = SupervisorApp(load(SupervisorSettings, environ))
        await app.start()
        stack.push_async_callback(app.stop)
        conn = rpc.channel(f"127.0.0.1:{app.port}", TOKEN)
        stack.push_async_callback(conn.close)
        control, runs = ControlServiceStub(conn), SupervisorServiceStub(conn)
        yield Place(control=control, runs=runs, checkpoint=checkpoint, log=world.log, world=world)


async def test_a_fork_has_the_past_of_its_parent_under_its_own_name_and_says_so(place: Place) -> None:
    run_id = await place.fork(
        set_={"max_attempts": "5", "time_budget": "1h30m"}, model_profile="big", model_may="author"
    )
    seq = place.before("b")
    events = await place.events(run_id)
    assert [canonical_json(e.payload) for e in place.log[:seq]] == [e.payload_json for e in events[:seq]]
    assert {e.run_id for e in events} == {run_id}
    forked = ev.parse(Event.model_validate_json(_as_json(events[seq])).payload)
    assert isinstance(forked, ev.RunForked)
    assert (forked.parent, forked.seq, forked.hash) == ("run-1", seq, place.log[seq - 1].hash)
    assert forked.limits == {"max_attempts": 5, "time_budget_s": 5400}
    assert (forked.generation, forked.by, forked.model_profile, forked.model_may) == (1, "ann", "big", "author")
    run = (await place.runs.GetRun(GetRunRequest(run_id=run_id))).run
    assert (run.origin.run_id, run.origin.seq, run.spec.max_attempts) == ("run-1", seq, 5)
    assert (await place.runs.VerifyRun(VerifyRunRequest(run_id=run_id))).ok
    assert (await place.control.ReplayRun(ct.ReplayRunRequest(run_id=run_id))).same


def _as_json(event: Any) -> bytes:
    fields = {"run_id": event.run_id, "seq": event.seq, "at": event.at_unix_s, "type": event.type}
    rest = {"actor": event.actor, "prev_hash": event.prev_hash, "hash": event.hash}
    return json.dumps({**fields, **rest, "payload": json.loads(event.payload_json)}).encode()


async def test_the_target_is_put_back_to_the_parents_generation_under_the_forks_own_lease(place: Place) -> None:
    run_id = await place.fork()
    await eventually(lambda: len(place.checkpoint.asked) >= 2)
    lease, restore = place.checkpoint.asked[:2]
    assert (lease.run_id, lease.target) == (run_id, "box")
    assert (restore.run_id, restore.from_run, restore.generation, restore.force) == (run_id, "run-1", 1, True)
    assert (restore.fencing_token, restore.command_seq) == (8, place.before("b") + 4)

    async def waits_for_health() -> bool:
        return b"check_health" in bytes((await place.events(run_id))[-1].payload_json)

    await eventually(waits_for_health)


async def test_the_same_key_gives_the_same_fork_even_when_the_target_is_its_own_by_then(place: Place) -> None:
    run_id = await place.fork(key="one")
    place.checkpoint.leased_by = run_id
    assert await place.fork(key="one") == run_id
    with pytest.raises(AlreadyExists):
        await place.fork(key="one", set_={"max_attempts": "4"})


REFUSED: list[tuple[dict[str, Any], type[AnnealError], str, str]] = [
    ({"set_": {"max_tea": "3"}}, InvalidArgument, "set.max_tea", "no such bound; there are approval_ttl"),
    ({"set_": {"max_attempts": "0"}}, InvalidArgument, "set.max_attempts", "between 1 and 20"),
    ({"set_": {"max_attempts": "many"}}, InvalidArgument, "set.max_attempts", "whole number, not 'many'"),
    ({"set_": {"time_budget": "soon"}}, InvalidArgument, "set.time_budget", "write for example 90s"),
    ({"set_": {"max_steps": "501"}}, InvalidArgument, "set.max_steps", "between 5 and 500"),
    ({"seq": 10_000}, InvalidArgument, "seq", "run-1 has events 1 to"),
    ({"seq": -1}, InvalidArgument, "seq", "and no -1"),
    ({"run_id": "run-9"}, NotFound, "run_id", "no run run-9"),
    ({"by": ""}, InvalidArgument, "by", "is required"),
    ({"key": ""}, InvalidArgument, "idempotency_key", "is required"),
    ({"model_profile": "x", "model_may": "everything"}, InvalidArgument, "model_may", "is one of author"),
]


@pytest.mark.parametrize(("fields", "error", "field_", "words"), REFUSED, ids=[f"{r[2]} {r[3][:18]}" for r in REFUSED])
async def test_what_cannot_be_forked_is_refused_with_its_field(
    place: Place, fields: dict[str, Any], error: type[AnnealError], field_: str, words: str
) -> None:
    with pytest.raises(error) as refused:
        await place.fork(**fields)
    assert refused.value.field == field_
    assert words in refused.value.message
    assert not place.checkpoint.asked


async def test_a_taken_target_and_one_without_snapshots_are_refused(place: Place) -> None:
    place.checkpoint.leased_by = "run-7"
    with pytest.raises(Leased, match="box is leased by run-7") as taken:
        await place.fork()
    place.checkpoint.leased_by, place.checkpoint.can_snapshot = "", False
    with pytest.raises(FailedPrecondition, match="box has no snapshots") as plain:
        await place.fork()
    assert (taken.value.field, plain.value.field) == ("target", "target")


async def test_a_generation_that_is_gone_names_the_events_of_those_that_are_there(place: Place) -> None:
    place.checkpoint.kept = [0]
    first_of_1 = next(
        e.seq for e in place.log if e.payload.get("result", {}).get("kind") == "snapshotted" and e.seq > 9
    )
    with pytest.raises(FailedPrecondition) as gone:
        await place.fork()
    assert gone.value.field == "seq"
    assert "stands on generation 1 of run-1, which is no longer kept" in gone.value.message
    assert f"events that can be forked: 1 to {first_of_1 - 1} (generation 0)" in gone.value.message
    assert await place.fork(first_of_1 - 1)
    place.checkpoint.kept = []
    with pytest.raises(FailedPrecondition, match="events that can be forked: none"):
        await place.fork(key="other")


async def test_after_the_end_of_a_finished_run_there_is_nothing_to_fork(place: Place) -> None:
    with pytest.raises(FailedPrecondition, match="nothing is left to do; fork it at an earlier one") as refused:
        await place.fork(len(place.log))
    assert refused.value.field == "seq"


async def test_steps_that_are_used_already_cannot_be_cut_off(place: Place) -> None:
    with pytest.raises(InvalidArgument, match="6 steps are used already") as refused:
        await place.fork(len(place.log) - 5, set_={"max_steps": "6"})
    assert refused.value.field == "set.max_steps"


async def test_a_run_that_goes_on_is_not_forked(place: Place, store: PostgresStore) -> None:
    run_id = await place.fork()
    with pytest.raises(FailedPrecondition, match=f"anneal cancel {run_id}") as refused:
        await place.fork(place.before("b") + 1, key="other", run_id=run_id)
    assert refused.value.field == "run_id"


async def test_what_a_fork_has_from_its_parent_is_forked_from_the_parent(place: Place, store: PostgresStore) -> None:
    child = place.world.fork(place.before("b"))
    child.run()
    await keep(store, child)
    with pytest.raises(InvalidArgument, match="are those of run-1: fork that run") as refused:
        await place.fork(place.before("a"), run_id=child.run_id)
    assert refused.value.field == "seq"


async def test_a_dry_run_is_forked_without_any_saved_state(place: Place, store: PostgresStore) -> None:
    dry = World(items=[item("a")], run_id="run-dry", now=time.time())
    dry.create(dry_run=True)
    dry.run()
    await keep(store, dry)
    plan = next(e.seq for e in dry.log if e.payload.get("kind") == "plan")
    run_id = await place.fork(plan, run_id="run-dry")
    assert (await place.runs.GetRun(GetRunRequest(run_id=run_id))).run.origin.generation == -1


async def test_a_damaged_log_is_not_forked(place: Place, postgres_dsn: str) -> None:
    conn = await asyncpg.connect(postgres_dsn)
    await conn.execute("ALTER TABLE supervisor.run_events DISABLE TRIGGER run_events_append_only")
    await conn.execute("UPDATE supervisor.run_events SET actor = 'nobody' WHERE seq = 5")
    await conn.close()
    with pytest.raises(DataLoss, match="event 5 was changed"):
        await place.fork()


async def test_a_past_that_is_not_the_parents_is_found_although_the_forks_own_chain_holds(
    place: Place, store: PostgresStore
) -> None:
    child = place.world.fork(place.before("b"))
    child.run()
    event = child.log[4]
    changed = [*child.log[:4], event.model_copy(update={"at": event.at + 1}), *child.log[5:]]
    child.log[:] = chain.renamed(changed, child.run_id)
    await keep(store, child)
    found = await place.runs.VerifyRun(VerifyRunRequest(run_id=child.run_id))
    seq = place.before("b") + 1
    assert (found.ok, found.first_bad_seq) == (False, seq)
    assert found.reason == f"the events before event {seq} are not those of run run-1, which it names"
    assert not (await place.control.ReplayRun(ct.ReplayRunRequest(run_id=child.run_id))).same
