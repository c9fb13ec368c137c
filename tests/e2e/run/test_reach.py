"""A fix that cuts the machine off, in a whole run: taken back from outside where that goes, else by the machine."""

from collections.abc import Callable
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


@pytest.mark.timeout(300)
def test_a_host_without_snapshots_that_drops_its_network_answers_again_by_itself_and_the_run_goes_on(
    anneal: Anneal, box: str, lab: Lab, machine: str, tmp_path: Path, on_machine: Callable[[str], str]
) -> None:
    a = lab.access(machine)
    host_key = tmp_path / "host_key.pub"
    host_key.write_text(a.host_key)
    where = ["--ssh", f"{a.user}@{a.host}:{a.port}", "--key", str(a.key_path), "--host-key", str(host_key)]
    added = anneal.cli("target", "add", "plain", *where)
    assert added.code == 0, added.err
    run = anneal.run("scratch", "--target", "plain", "--profile", "cuts", "--no-memory")
    assert run["state"] == "finished", run["reason"]
    assert {i["id"]: i["state"] for i in run["items"]} == dict.fromkeys(ITEMS, "completed")
    for item_id, mode in zip(ITEMS, ("target_unreachable", "health_failure"), strict=True):
        tried = first_try(run, item_id)
        assert (tried["failure_mode"], tried["ending"]) == (mode, "reverted")
        assert REACH_GRACE_S <= tried["seconds"] < REACH_GRACE_S + 25, tried
    assert on_machine(LEFT) == ""
    assert anneal.cli("target", "remove", "plain").code == 0
