"""A worker killed at each of its fault points, and another that gets the command again: the script ran once."""

import pytest
from anneal_runtime import faults

from tests.e2e.effects.conftest import Ledger, Machine, effect, said, worker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

POINTS = ("before_intent", "before_apply", "while_applying", "after_apply", "after_record")


def test_these_are_all_its_points() -> None:
    import anneal_worker.app  # noqa: F401 - declares them

    # Handing a result in is no part of an action: its points are those of every doer.
    of_reports = {"worker.taken_in", "worker.before_report", "worker.after_report"}
    of_actions = {p for p in faults.KNOWN if p.startswith("worker.")} - of_reports
    # What only a second worker comes by is killed there below.
    assert {f"worker.{p}" for p in (*POINTS, "after_read")} == of_actions


@pytest.mark.parametrize("point", POINTS)
async def test_what_a_killed_worker_left_is_read_and_the_script_runs_once(
    ledger: Ledger, machine: Machine, point: str
) -> None:
    token = await ledger.acquire("run-1")
    command = effect("run-1", token, 4, f"killed-{point.replace('_', '-')}", seconds=1.0)
    async with worker(ledger, command, f"worker.{point}=kill") as first:
        assert await first.wait() == -9
    async with worker(ledger, command) as second:
        answer = await said(second)
    assert (answer.get("state"), answer.get("exit_code")) == ("applied", 0), answer
    assert await machine.sh(f"cat /etc/paused/{command.item_id}") == "ran\n"
    assert await ledger.states("run-1") == {command.item_id: "applied"}


async def test_a_second_worker_killed_after_it_has_read_leaves_a_third_the_same_task(
    ledger: Ledger, machine: Machine
) -> None:
    token = await ledger.acquire("run-1")
    command = effect("run-1", token, 4, "killed-after-read")
    for point in ("worker.after_apply", "worker.after_read"):
        async with worker(ledger, command, f"{point}=kill") as dead:
            assert await dead.wait() == -9
    async with worker(ledger, command) as third:
        assert (await said(third))["state"] == "applied"
    assert await machine.sh(f"cat /etc/paused/{command.item_id}") == "ran\n"
    assert await ledger.states("run-1") == {command.item_id: "applied"}
