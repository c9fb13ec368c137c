"""A fix that cuts the machine off, in a whole run: taken back from outside where that goes, else by the machine."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anneal_core.commands import REACH_GRACE_S
from anneal_lab import Lab

from tests.support.stack import Anneal

ITEMS = ("takes-the-link-down", "lets-nobody-in")
LEFT = "ls /etc/systemd/system | grep deadman; nft list tables; true"


def first_try(run: dict[str, Any], item_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(i for i in run["items"] if i["id"] == item_id)["story"][0]
    return found


@pytest.mark.timeout(200)
def test_a_fix_that_drops_the_network_is_reverted_from_outside_within_15_seconds(
    anneal: Anneal, box: str, on_machine: Callable[[str], str]
) -> None:
    run = anneal.run("scratch", "--target", box, "--profile", "cuts", "--no-memory")
    assert {i["id"]: i["state"] for i in run["items"]} == dict.fromkeys(ITEMS, "completed")
    for item_id, mode in zip(ITEMS, ("target_unreachable", "health_failure"), strict=True):
        tried = first_try(run, item_id)
        assert (tried["failure_mode"], tried["ending"]) == (mode, "reverted")
        assert tried["seconds"] < 15, (tried["seconds"], tried["parts"])
    assert on_machine(LEFT) == ""


@pytest.fixture
def plain(anneal: Anneal, box: str, lab: Lab, machine: str, tmp_path: Path) -> Iterator[str]:
    """The same machine as a host of somebody's: by SSH alone, without snapshots."""
    a = lab.access(machine)
    host_key = tmp_path / "host_key.pub"
    host_key.write_text(a.host_key)
    where = ["--ssh", f"{a.user}@{a.host}:{a.port}", "--key", str(a.key_path), "--host-key", str(host_key)]
    added = anneal.cli("target", "add", "plain", *where)
    assert added.code == 0, added.err
    yield "plain"
    assert anneal.cli("target", "remove", "plain").code == 0


@pytest.mark.timeout(300)
def test_a_host_without_snapshots_that_drops_its_network_answers_again_by_itself_and_the_run_goes_on(
    anneal: Anneal, plain: str, on_machine: Callable[[str], str]
) -> None:
    run = anneal.run("scratch", "--target", plain, "--profile", "cuts", "--no-memory")
    assert run["state"] == "finished", run["reason"]
    assert {i["id"]: i["state"] for i in run["items"]} == dict.fromkeys(ITEMS, "completed")
    for item_id, mode in zip(ITEMS, ("target_unreachable", "health_failure"), strict=True):
        tried = first_try(run, item_id)
        assert (tried["failure_mode"], tried["ending"]) == (mode, "reverted")
        assert REACH_GRACE_S <= tried["seconds"] < REACH_GRACE_S + 25, tried
    assert on_machine(LEFT) == ""


@pytest.mark.timeout(200)
def test_a_script_that_a_power_cut_ended_on_a_host_without_snapshots_is_undone_and_not_repeated(
    anneal: Anneal, plain: str, lab: Lab, machine: str, on_machine: Callable[[str], str]
) -> None:
    command = ("run", "scratch", "--target", plain, "--profile", "undo", "--item", "cut-off", "--no-memory")
    run_id = anneal.cli(*command, "--json", "--no-watch").json()["run_id"]
    until = time.monotonic() + 60
    while on_machine("cat /etc/scratch/cut-off.count 2>/dev/null || true") == "":
        assert time.monotonic() < until, anneal.log_tail()
        time.sleep(0.2)
    lab.down(machine)
    lab.up(machine)
    run = anneal.finished(run_id)
    assert run["state"] == "finished", run["reason"]
    assert [(a["failure_mode"], a["ending"]) for a in run["items"][0]["story"]] == [
        ("apply_error", "reverted"),
        ("", "kept"),
    ]
    # Once each: what was cut off was not run again, and not undone twice.
    assert on_machine("cat /etc/scratch/cut-off.count /etc/scratch/cut-off.undone") == "run\nundone\n"
    assert [(e["state"], bool(e["undoes"])) for e in effects_of(anneal, run_id)] == [
        ("reverted", False),
        ("applied", True),
        ("applied", False),
    ]
    assert on_machine(LEFT) == ""


def test_a_change_that_cannot_be_taken_back_stops_the_run_and_is_named(anneal: Anneal, plain: str) -> None:
    run = anneal.run("scratch", "--target", plain, "--profile", "undo", "--item", "cannot-be-undone", "--no-memory")
    assert run["state"] == "failed", run["items"]
    (unknown,) = (e for e in effects_of(anneal, run["run_id"]) if e["state"] == "unknown")
    assert f"effect {unknown['key'][:12]} of cannot-be-undone is unknown" in run["reason"]
    assert "ended with 1" in unknown["detail"]
    shown = anneal.cli("effects", run["run_id"]).out
    assert f"/var/lib/anneal/effects/{unknown['key']}" in shown.replace("\n", "")


def effects_of(anneal: Anneal, run_id: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = anneal.cli("effects", run_id, "--json").json()
    return listed
