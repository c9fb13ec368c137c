"""A worker that slept between the ledger's leave and the target: SIGSTOP, the world goes on, SIGCONT."""

import asyncio
import signal

import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal_runtime.errors import StaleToken
from anneal_runtime.testing import eventually

from tests.e2e.effects.conftest import Ledger, Machine, asleep, effect, said, worker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

# Between the ledger's leave and the first word to the target.
HERE = "worker.before_apply=stop"
# Before that as well: a worker's start takes long on a busy machine, and its lease is short.
TWICE = f"worker.before_intent=stop,{HERE}"
LEASE_S = 6


async def left_on(machine: Machine) -> list[str]:
    return (await machine.sh("ls /etc/paused 2>/dev/null || true")).split()


async def has_leave(ledger: Ledger, sleeper: asyncio.subprocess.Process, token: int) -> None:
    """The worker is up and has asked for nothing yet; now its short lease begins, and it gets its leave and sleeps."""
    await asleep(sleeper)
    assert await ledger.acquire("run-1", ttl_s=LEASE_S) == token
    sleeper.send_signal(signal.SIGCONT)
    await eventually(lambda: _intended(ledger), timeout=LEASE_S)
    await asleep(sleeper)


async def _intended(ledger: Ledger) -> bool:
    return list((await ledger.states("run-1")).values()) == ["intended"]


async def test_a_worker_that_slept_while_its_lease_ran_out_changes_nothing_although_nobody_else_came(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.token_after_this("run-1")
    async with worker(ledger, effect("run-1", token, 4, "expired"), TWICE) as sleeper:
        await has_leave(ledger, sleeper, token)
        await asyncio.sleep(LEASE_S)
        sleeper.send_signal(signal.SIGCONT)
        answer = await said(sleeper)
    assert answer["error"] == "fenced", answer
    assert "lease" in answer["message"]
    assert "expired" not in await left_on(machine)


async def test_a_worker_that_slept_while_another_run_took_the_target_changes_nothing(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.token_after_this("run-1")
    async with worker(ledger, effect("run-1", token, 400, "overtaken"), TWICE) as sleeper:
        await has_leave(ledger, sleeper, token)
        await asyncio.sleep(LEASE_S)
        newer = await ledger.acquire("run-2")
        assert newer > token
        async with worker(ledger, effect("run-2", newer, 4, "newer")) as other:
            assert (await said(other))["state"] == "applied"
        sleeper.send_signal(signal.SIGCONT)
        assert (await said(sleeper))["error"] == "fenced"
    assert "overtaken" not in await left_on(machine)
    assert await ledger.states("run-1") == {"overtaken": "unknown"}


async def test_a_worker_that_slept_while_its_own_run_went_on_changes_nothing(ledger: Ledger, machine: Machine) -> None:
    token = await ledger.acquire("run-1")
    async with worker(ledger, effect("run-1", token, 4, "behind"), HERE) as sleeper:
        await asleep(sleeper)
        async with worker(ledger, effect("run-1", token, 9, "ahead")) as other:
            assert (await said(other))["state"] == "applied"
        sleeper.send_signal(signal.SIGCONT)
        answer = await said(sleeper)
    assert (answer["error"], "command 4" in answer["message"]) == ("fenced", True), answer
    assert "behind" not in await left_on(machine)


@pytest.mark.parametrize("changed", [True, False])
async def test_a_worker_that_slept_through_a_restore_changes_nothing(
    ledger: Ledger, machine: Machine, changed: bool
) -> None:
    token = await ledger.acquire("run-1")
    await machine.sh("rm -rf /etc/paused /etc/changed")
    await ledger.stub.Snapshot(
        cp.SnapshotRequest(
            idempotency_key=f"s-{changed}",
            target="box",
            run_id="run-1",
            fencing_token=token,
            generation=0,
            command_seq=3,
        )
    )
    async with worker(ledger, effect("run-1", token, 4, "undone"), HERE) as sleeper:
        await asleep(sleeper)
        if changed:
            await machine.sh("touch /etc/changed")
        # The same lease, and nothing has run since: the target's own memory of commands does not know better.
        restored = await ledger.stub.Restore(
            cp.RestoreRequest(
                idempotency_key=f"r-{changed}",
                target="box",
                run_id="run-1",
                fencing_token=token,
                generation=0,
                command_seq=6,
                volatile_paths=["/var/**", "/run/**", "/tmp/**"],
            ),
            timeout=60,
        )
        assert restored.restored
        sleeper.send_signal(signal.SIGCONT)
        answer = await said(sleeper)
    assert (answer["error"], "booted" in answer["message"]) == ("fenced", True), answer
    assert await left_on(machine) == []
    assert await ledger.states("run-1") == {"undone": "reverted"}


async def test_a_worker_that_slept_before_it_asked_the_ledger_is_refused_there(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.acquire("run-1")
    async with worker(ledger, effect("run-1", token, 4, "late"), "worker.before_intent=stop") as sleeper:
        await asleep(sleeper)
        async with worker(ledger, effect("run-1", token, 9, "on-time")) as other:
            assert (await said(other))["state"] == "applied"
        sleeper.send_signal(signal.SIGCONT)
        assert (await said(sleeper))["error"] == StaleToken.reason
    assert "late" not in await left_on(machine)
