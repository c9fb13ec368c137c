"""Waves, gates, learnt conflicts and deferred items, on a real machine."""

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
