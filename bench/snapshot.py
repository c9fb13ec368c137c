"""Snapshot of a running machine and the way back from a lock-out: by the lab itself, and through checkpoint."""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal_runtime.rpc import channel
from google.protobuf.duration_pb2 import Duration

from bench.figures import BenchError, Figure, Peer, Scale, timed
from bench.machines import Machine, machine
from bench.stack import Running, data_folder, dev

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub

GOAL_S: Final = {"p99": 15.0}
# As the service does: a few generations of a run are kept.
_KEEP: Final = 3
_RUN: Final = "bench"
# A kept fix: some files are other ones, a service was restarted.
_FIX: Final = "echo {0} >/etc/bench; echo '# {0}' >>/etc/ssh/sshd_config; echo '# {0}' >>/etc/login.defs; sync"
# sshd refuses its own settings and stays down.
_LOCK_OUT: Final = "echo 'NoSuchOption yes' >>/etc/ssh/sshd_config; systemctl restart sshd || true"


@dataclass(frozen=True)
class Times:
    """Seconds of each snapshot (or copy), and of each way back until a login works."""

    saved: list[float] = field(default_factory=list)
    reverted: list[float] = field(default_factory=list)


def run(scale: Scale) -> Sequence[Figure]:
    """Both ways, a machine each."""
    rounds = scale.count(12, 2)
    with machine("a") as box:
        scale.say(f"{rounds} times by the lab: fix, snapshot, lock-out, revert (50 s)")
        lab = _by_lab(box, rounds)
        scale.say("peers: cp -a of the same disk, a plain stop and boot (25 s)")
        peers = _peers(box, scale.count(10, 1))
    with machine("b") as box, data_folder() as home, dev(home, "--no-model") as running:
        scale.say(f"{rounds} times the same through checkpoint (50 s)")
        service = asyncio.run(_by_service(running, box, rounds))
    bare = "the same by the lab, without the service"
    return [
        _saved("snapshot_s", lab, "cp -a of the machine's overlay, which is not held still for it", peers),
        _reverted("revert_s", lab, "the floor: stop and boot until a login works, with nothing put back", peers),
        _saved("service_snapshot_s", service, bare, lab),
        _reverted("service_revert_s", service, bare, lab),
    ]


def _saved(name: str, times: Times, what: str, peer: Times) -> Figure:
    return Figure(name=name, unit="s", values=tuple(times.saved), peer=Peer(what=what, values=tuple(peer.saved)))


def _reverted(name: str, times: Times, what: str, peer: Times) -> Figure:
    held = Peer(what=what, values=tuple(peer.reverted))
    return Figure(name=name, unit="s", values=tuple(times.reverted), goal=GOAL_S, peer=held)


def _lock_out(box: Machine) -> None:
    """Nobody can log in any more. Raises BenchError where somebody can: there would be nothing to measure."""
    box.sh(_LOCK_OUT)
    if box.greets():
        raise BenchError(f"{box.name}: sshd still answers, so this is no lock-out")


def _by_lab(box: Machine, rounds: int) -> Times:
    """The lab alone."""
    times = Times()
    for i in range(rounds):
        box.sh(_FIX.format(i))
        with timed(times.saved):
            box.lab.snapshot(box.name, f"g{i}")
        if i >= _KEEP:
            box.lab.drop(box.name, f"g{i - _KEEP}")
        _lock_out(box)
        with timed(times.reverted):
            box.lab.restore(box.name, f"g{i}")
            box.login()
    return times


def _peers(box: Machine, rounds: int) -> Times:
    """A plain copy of the disk, and a plain stop and boot."""
    times = Times()
    paths = box.lab.machine_paths(box.name)
    copy = paths.folder / "copy"
    for _ in range(rounds):
        with timed(times.saved):
            subprocess.run(["cp", "-a", str(paths.upper), str(copy)], check=True)
        shutil.rmtree(copy)
        with timed(times.reverted):
            box.lab.down(box.name)
            box.lab.up(box.name)
            box.login()
    return times


async def _by_service(running: Running, box: Machine, rounds: int) -> Times:
    """The same as _by_lab, each operation a call over gRPC."""
    times = Times()
    wire = channel(running.address("checkpoint"), running.token)
    try:
        stub: CheckpointServiceAsyncStub = CheckpointServiceStub(wire)
        token = await _lease(stub, box)
        for i in range(rounds):
            await asyncio.to_thread(box.sh, _FIX.format(i))
            with timed(times.saved):
                await stub.Snapshot(_save(token, i), timeout=60)
            await asyncio.to_thread(_lock_out, box)
            with timed(times.reverted):
                answer = await stub.Restore(_bring_back(token, i), timeout=60)
                await asyncio.to_thread(box.login)
            if not answer.restored:
                raise BenchError("checkpoint says that there was nothing to restore")
    finally:
        await wire.close()
    return times


def _save(token: int, generation: int) -> pb.SnapshotRequest:
    return pb.SnapshotRequest(
        idempotency_key=f"snapshot-{generation}",
        target="box",
        run_id=_RUN,
        fencing_token=token,
        generation=generation,
    )


def _bring_back(token: int, generation: int) -> pb.RestoreRequest:
    return pb.RestoreRequest(
        idempotency_key=f"restore-{generation}",
        target="box",
        run_id=_RUN,
        fencing_token=token,
        generation=generation,
        force=True,
    )


async def _lease(stub: "CheckpointServiceAsyncStub", box: Machine) -> int:
    target = pb.Target(name="box", driver="nspawn", machine=box.name)
    await stub.AddTarget(pb.AddTargetRequest(idempotency_key="add", target=target))
    lease = await stub.AcquireLease(
        pb.AcquireLeaseRequest(idempotency_key="lease", target="box", run_id=_RUN, ttl=Duration(seconds=1800))
    )
    return lease.fencing_token
