"""Waves, gates, learnt conflicts and deferred items, on a real machine."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from anneal_lab import Lab

from tests.support.stack import Anneal


def items(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {i["id"]: i for i in run["items"]}


@pytest.mark.timeout(180)  # two runs and a boot
def test_what_a_gate_finds_undone_is_mended_and_the_next_run_works_in_the_better_order(
    anneal: Anneal, box: str, lab: Lab, machine: str, on_machine: Callable[[str], str]
) -> None:
    first = anneal.run("scratch", "--target", box, "--profile", "waves")
    found = items(first)
    assert [len(found[i]["story"]) for i in ("base", "breaker", "top")] == [2, 1, 1]
    assert {found[i]["state"] for i in ("base", "breaker", "top")} == {"completed"}
    assert found["never"]["state"] == "escalated"
    assert (found["orphan"]["state"], found["orphan"]["reason"]) == (
        "skipped",
        "depends on never, which was escalated",
    )
    assert on_machine("cat /etc/scratch/base").strip() == "base"
    lab.reset(machine)
    second = anneal.run("scratch", "--target", box, "--profile", "waves")
    assert [i["id"] for i in second["items"]][:3] == ["breaker", "base", "never"]
    assert [len(items(second)[i]["story"]) for i in ("base", "breaker", "top")] == [1, 1, 1]
    assert second["steps"] < first["steps"]


def test_a_deferred_item_has_its_last_word_after_a_boot(anneal: Anneal, box: str) -> None:
    run = anneal.run("scratch", "--target", box, "--profile", "defers", "--no-memory")
    found = items(run)
    assert (found["after-boot"]["state"], found["after-boot"]["reason"]) == (
        "completed",
        "waits_for_boot: the check holds now",
    )
    assert found["not-even-then"]["state"] == "escalated"
    assert found["not-even-then"]["reason"] == "waits_for_boot: the check still says fail"
    assert found["after-boot"]["final_outcome"] == "pass"


def until(anneal: Anneal, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The newest run's document once it is as wanted."""
    for _ in range(300):
        run: dict[str, Any] = json.loads(anneal.cli("show", "last", "--json").out)
        if wanted(run):
            return run
        time.sleep(0.2)
    raise AssertionError(f"it never came to it: {run['state']}, {run['states']}")


@pytest.mark.timeout(120)
def test_a_destructive_action_waits_for_a_person_while_others_go_on_and_a_paused_run_for_all_of_it(
    anneal: Anneal, box: str, on_machine: Callable[[str], str]
) -> None:
    started = anneal.cli("run", "scratch", "--target", box, "--profile", "asks", "--no-memory", "--no-watch", "--json")
    assert started.code == 0, started.err
    run = until(anneal, lambda r: items(r).get("harmless", {}).get("state") == "completed")
    assert items(run)["wipes"]["state"] == "waiting"
    assert on_machine("ls /etc/scratch").split() == ["harmless"]
    (asked,) = json.loads(anneal.cli("approvals", "list", "--json").out)
    shown = anneal.cli("approvals", "show", asked["id"])
    assert "echo wipes > /etc/scratch/wipes" in shown.out
    assert anneal.cli("approvals", "grant", asked["id"], "--hash", "0" * 12).code == 5
    assert anneal.cli("pause", "last").code == 0
    assert anneal.cli("approvals", "grant", asked["id"], "--hash", asked["action_hash"][:12]).code == 0
    assert anneal.cli("approvals", "deny", asked["id"]).code == 5
    assert until(anneal, lambda r: r["state"] == "paused")
    assert on_machine("ls /etc/scratch").split() == ["harmless"]
    assert anneal.cli("resume", "last").code == 0
    run = until(anneal, lambda r: r["state"] == "finished")
    assert items(run)["wipes"]["state"] == "completed"
    assert anneal.cli("resume", "last").code == 5
    replayed = anneal.cli("replay", "last")
    assert (replayed.code, replayed.out.split(":")[0]) == (0, "same"), replayed.out
