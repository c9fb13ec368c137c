"""What a fork's own calls to checkpoint and memory say: the parent's generation, and its own attempts alone."""

from typing import Any, cast

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.memory.v1 import memory_pb2 as mem
from anneal_contracts.facts import Outcome
from anneal_core.state import Pending, RunState
from anneal_supervisor.dispatch import Dispatcher

from tests.unit.core.world import World, item


class Peers:
    """Blobs, checkpoint and memory in one; asked: what came in."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def get_blob(self, sha256: str) -> tuple[str, bytes]:
        return "text/x-shellscript", f"content of {sha256[:8]}".encode()

    async def Restore(self, request: cp.RestoreRequest, timeout: float = 0) -> cp.RestoreResponse:
        self.asked.append(request)
        return cp.RestoreResponse(restored=True)

    async def Snapshot(self, request: cp.SnapshotRequest, timeout: float = 0) -> cp.SnapshotResponse:
        self.asked.append(request)
        return cp.SnapshotResponse(generation=request.generation)

    async def Record(self, request: mem.RecordRequest) -> mem.RecordResponse:
        self.asked.append(request)
        return mem.RecordResponse()


async def told(*kinds: str) -> list[Any]:
    """What a fork before the attempt at b says with its commands of these kinds."""
    world = World(items=[item("a"), item("b")], verdicts={("a", 1): Outcome.FAIL})
    world.create()
    world.run()
    seq = next(e.seq for e in world.log if e.type == "attempt_started" and e.payload["item_id"] == "b") - 1
    child = world.fork(seq)
    moments: list[tuple[RunState, Pending]] = []

    def note(state: RunState, pending: Pending) -> None:
        if pending.kind in kinds:
            moments.append((state, pending))

    child.override = note
    child.run()
    peers = cast(Any, Peers())
    dispatcher = Dispatcher(peers, peers, peers, lease_s=60)
    for state, pending in moments:
        await dispatcher.direct(state, pending)
    return list(peers.asked)


async def test_the_way_back_is_to_the_parents_generation_and_every_other_to_the_forks_own() -> None:
    back, *rest = await told("rewind", "restore")
    assert (back.from_run, back.generation, back.force) == ("run-1", 0, True)
    assert back.run_id != "run-1"
    assert rest and all((r.run_id, r.from_run) == (back.run_id, "") for r in rest)


async def test_only_the_snapshot_after_the_way_back_is_the_first() -> None:
    asked = await told("snapshot")
    assert [(r.generation, r.first) for r in asked] == [(0, True), (1, False)]


async def test_memory_hears_of_the_forks_own_attempts_alone() -> None:
    (record,) = await told("record")
    assert [(o.item_id, o.worked) for o in record.outcomes] == [("b", True)]
