"""Snapshot, change, restore through gRPC, on a real machine."""

import asyncio
import time
from pathlib import Path

import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_runtime.errors import TargetUnreachable, Unavailable
from anneal_runtime.testing import eventually
from google.protobuf.duration_pb2 import Duration

from tests.e2e.checkpoint.conftest import Machine, Process, Stub

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

# What a boot, a login or the clock changes by itself.
VOLATILE = ["/var/*", "/run/*", "/tmp/*", "/home/*", "/etc/tuned/*"]


async def begin(stub: Stub, machine: Machine, run_id: str) -> int:
    target = pb.Target(name="lab", driver="nspawn", machine=machine.name)
    await stub.AddTarget(pb.AddTargetRequest(idempotency_key=f"add-{run_id}", target=target))
    lease = await stub.AcquireLease(
        pb.AcquireLeaseRequest(
            idempotency_key=f"lease-{run_id}", target="lab", run_id=run_id, ttl=Duration(seconds=300)
        )
    )
    return lease.fencing_token


def snapshot(run_id: str, token: int, generation: int) -> pb.SnapshotRequest:
    return pb.SnapshotRequest(
        idempotency_key=f"s-{run_id}-{generation}",
        target="lab",
        run_id=run_id,
        fencing_token=token,
        generation=generation,
    )


def restore(run_id: str, token: int, generation: int, *, key: str, force: bool = False) -> pb.RestoreRequest:
    return pb.RestoreRequest(
        idempotency_key=key,
        target="lab",
        run_id=run_id,
        fencing_token=token,
        generation=generation,
        force=force,
        volatile_paths=VOLATILE,
    )


async def test_a_change_is_taken_back_and_the_machine_answers_again(process: Process, machine: Machine) -> None:
    async with process() as (_, stub):
        token = await begin(stub, machine, "run-1")
        target = (await stub.GetTarget(pb.GetTargetRequest(name="lab"))).target
        assert target.host_key.startswith("ssh-ed25519 ")
        assert target.can_snapshot
        await stub.Snapshot(snapshot("run-1", token, 0))
        assert await machine.sh("echo kept > /etc/kept") == 0
        await stub.Snapshot(snapshot("run-1", token, 1))
        assert await machine.sh("rm /etc/kept /etc/hostname; echo broken >> /etc/ssh/sshd_config; chmod 777 /etc") == 0
        began = time.monotonic()
        answer = await stub.Restore(restore("run-1", token, 1, key="k1"))
        assert time.monotonic() - began < 15
        assert answer.restored
        assert {"/etc", "/etc/kept", "/etc/hostname", "/etc/ssh/sshd_config"} <= set(answer.changed_paths)
        assert await machine.sh("test -e /etc/kept && test -e /etc/hostname && ! grep broken /etc/ssh/sshd_config") == 0
        again = await stub.Restore(restore("run-1", token, 1, key="k2"))
        assert not again.restored, again.changed_paths
        assert (await stub.Restore(restore("run-1", token, 0, key="k3"))).restored
        assert await machine.sh("test ! -e /etc/kept") == 0


async def test_sshd_that_is_broken_and_stopped_comes_back_within_15_seconds(process: Process, machine: Machine) -> None:
    async with process() as (_, stub):
        token = await begin(stub, machine, "run-2")
        await stub.Snapshot(snapshot("run-2", token, 0))
        await machine.sh("echo nonsense > /etc/ssh/sshd_config; systemctl stop ssh sshd; systemctl mask ssh")
        began = time.monotonic()
        assert (await stub.Restore(restore("run-2", token, 0, key="k", force=True))).restored
        assert await machine.sh("true") == 0
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("point", ["checkpoint.before_restore", "checkpoint.after_restore"])
async def test_a_service_killed_in_a_restore_completes_it_after_its_restart(
    process: Process, machine: Machine, tmp_path: Path, point: str
) -> None:
    run_id = f"run-{point.rpartition('_')[0][-6:]}"
    async with process(faults=f"{point}=kill@{tmp_path / 'killed'}") as (service, stub):
        token = await begin(stub, machine, run_id)
        await stub.Snapshot(snapshot(run_id, token, 0))
        assert await machine.sh("echo broken > /etc/broken") == 0
        with pytest.raises(Unavailable):
            await stub.Restore(restore(run_id, token, 0, key="k"))
        assert (await service.ended())[0] == -9
    async with process() as (service, stub):
        # By itself, without a call; this waits until the machine is up again.
        await eventually(lambda: _reachable(stub), timeout=20)
        assert await machine.sh("test ! -e /etc/broken") == 0
        answer = await stub.Restore(restore(run_id, token, 0, key="k"))
        assert answer.restored
        assert "/etc/broken" in answer.changed_paths
        assert (await service.stop())[0] == 0


async def _reachable(stub: Stub) -> bool:
    """False while the machine is down, or is being restored by the service that has just started."""
    try:
        await stub.GetTarget(pb.GetTargetRequest(name="lab"))
    except TargetUnreachable:
        return False
    return True


async def test_a_machine_that_is_down_is_unreachable_and_named(process: Process, machine: Machine) -> None:
    async with process() as (_, stub):
        await begin(stub, machine, "run-3")
        await asyncio.to_thread(machine.lab.down, machine.name)
        try:
            with pytest.raises(TargetUnreachable, match=machine.name):
                await stub.GetTarget(pb.GetTargetRequest(name="lab"))
        finally:
            await asyncio.to_thread(machine.lab.up, machine.name)
