"""The dead-man timer with a real systemd: what cuts us off is taken back by the machine itself."""

import asyncio
import time

import pytest
from anneal_runtime.errors import TargetUnreachable
from anneal_runtime.testing import eventually
from anneal_skillkit.effects import EffectTakenBack, TakenBack, disarm, read_markers, run_effect
from anneal_skillkit.interfaces import Guard
from anneal_skillkit.ssh import SshSession, connect

from tests.e2e.effects.conftest import Machine
from tests.support.permits import permit_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

AFTER_S = 6
TIMERS = (
    "systemctl list-units --all --plain --no-legend 'anneal-deadman*'; ls /etc/systemd/system | grep deadman || true"
)


def guard(undo: str, *, required: bool = True) -> Guard:
    return Guard(undo=undo.encode(), after_s=AFTER_S, required=required)


async def reachable(machine: Machine) -> bool:
    try:
        await (await connect(machine.access, timeout_s=2)).close()
    except TargetUnreachable:
        return False
    return True


async def test_a_machine_that_took_its_network_down_answers_again_by_itself(
    machine: Machine, session: SshSession
) -> None:
    permit = await permit_for(session, "e2e-link-down", guard=guard("ip link set host0 up"))
    began = time.monotonic()
    with pytest.raises(EffectTakenBack) as told:
        await run_effect(session, permit, b"ip link set host0 down", timeout_s=20)
    took = time.monotonic() - began
    assert told.value.whole
    assert AFTER_S <= took < AFTER_S + 12, took
    assert await reachable(machine)
    # Nothing of the timer stays behind.
    await eventually(lambda: _disarmed(machine), timeout=5)


async def test_a_machine_that_lets_nobody_in_any_more_answers_again_by_itself(
    machine: Machine, session: SshSession
) -> None:
    drop = "nft add table inet cut; nft add chain inet cut in '{ type filter hook input priority 0; policy drop; }'"
    permit = await permit_for(session, "e2e-drop-all", guard=guard("nft delete table inet cut"))
    # What it says still reaches us: it looks like a success until somebody tries to come in.
    assert (await run_effect(session, permit, drop.encode(), timeout_s=20)).exit_code == 0
    assert not await reachable(machine)
    began = time.monotonic()
    await eventually(lambda: reachable(machine), timeout=AFTER_S + 10)
    assert time.monotonic() - began < AFTER_S + 6
    other = await connect(machine.access)
    assert await _taken_back(other, permit.key)
    await other.close()


async def test_a_change_stands_after_a_new_session_showed_that_the_machine_answers(
    machine: Machine, session: SshSession
) -> None:
    permit = await permit_for(session, "e2e-kept-change", guard=guard("rm -f /etc/e2e-kept"))
    assert (await run_effect(session, permit, b"touch /etc/e2e-kept", timeout_s=20)).exit_code == 0
    armed = await machine.sh(TIMERS)
    assert "anneal-deadman-e2e-kept-change.timer" in armed
    assert "anneal-deadman-e2e-kept-change-end.timer" in armed
    canary = await connect(machine.access)
    assert await disarm(canary, permit.key) is None
    assert await disarm(canary, permit.key) is None
    await canary.close()
    assert (await machine.sh(TIMERS)).strip() == ""
    await asyncio.sleep(AFTER_S + 1)
    await machine.sh("test -e /etc/e2e-kept; rm /etc/e2e-kept")


async def test_a_change_that_nobody_looked_at_is_taken_back_soon_after_its_end_and_not_when_its_time_is_up(
    machine: Machine, session: SshSession
) -> None:
    permit = await permit_for(session, "e2e-forgotten", guard=guard("rm -f /etc/e2e-forgotten; echo gone"))
    await run_effect(session, permit, b"touch /etc/e2e-forgotten", timeout_s=300)
    await eventually(lambda: _taken_back(session, permit.key), timeout=AFTER_S + 5)
    assert await disarm(session, permit.key) == TakenBack(exit_code=0, output=b"gone\n")
    await machine.sh("! test -e /etc/e2e-forgotten")


async def test_a_script_that_hangs_and_cuts_us_off_is_ended_when_its_whole_time_is_up(
    machine: Machine, session: SshSession
) -> None:
    permit = await permit_for(session, "e2e-hanging", guard=guard("ip link set host0 up"))
    began = time.monotonic()
    with pytest.raises(EffectTakenBack):
        await run_effect(session, permit, b"trap '' TERM; ip link set host0 down; sleep 60", timeout_s=4)
    assert time.monotonic() - began < 4 + AFTER_S + 12
    assert await reachable(machine)


async def test_the_timer_survives_a_power_cut(machine: Machine, session: SshSession) -> None:
    permit = await permit_for(session, "e2e-power-cut", guard=guard("rm -f /etc/e2e-cut"))
    await run_effect(session, permit, b"touch /etc/e2e-cut; sync", timeout_s=2)
    await machine.pull_the_plug()
    await machine.sh("test -e /etc/e2e-cut")
    other = await connect(machine.access)
    await eventually(lambda: _taken_back(other, permit.key), timeout=2 + AFTER_S + 10)
    await other.close()
    await machine.sh("! test -e /etc/e2e-cut; ! ls /etc/systemd/system | grep deadman")


async def _taken_back(session: SshSession, key: str) -> bool:
    return isinstance(await read_markers(session, key), TakenBack)


async def _disarmed(machine: Machine) -> bool:
    return (await machine.sh(TIMERS)).strip() == ""
