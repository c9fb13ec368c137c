"""The loop on a real machine: what is kept, what is taken back, what is remembered, and how long a lock-out lasts."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anneal_lab import Lab

from tests.support.stack import Anneal


def states(run: dict[str, Any]) -> dict[str, str]:
    return {i["id"]: i["state"] for i in run["items"]}


def test_a_run_keeps_what_works_takes_back_what_does_not_and_scores_by_its_last_scan(
    anneal: Anneal, box: str, on_machine: Callable[[str], str]
) -> None:
    run = anneal.run("scratch", "--target", box, "--no-memory")
    assert run["state"] == "finished"
    assert states(run) == {
        "good": "completed",
        "second-rung": "completed",
        "noisy": "completed",
        "gap-pass": "escalated",
        "nothing": "escalated",
        "wants-more": "escalated",
        "with-undo": "completed",
        "wrong-with-undo": "escalated",
    }
    score = run["score"]
    assert (score["before"]["pass"], score["after"]["pass"], score["fixed"], score["regressed"]) == (0, 4, 4, 0)
    left = on_machine("ls /etc/scratch").split()
    assert sorted(f for f in left if not f.endswith(".count")) == ["good", "noisy", "second-rung", "with-undo"]
    assert anneal.cli("audit", "verify", run["run_id"]).code == 0


def test_what_the_runs_own_fix_makes_applicable_is_mended_too_and_is_no_regression(anneal: Anneal, box: str) -> None:
    run = anneal.run("scratch", "--target", box, "--profile", "applies", "--no-memory")
    assert states(run) == {"tool": "completed", "tool-config": "completed", "tool-licence": "escalated"}
    assert run["became_applicable"] == {"tool-config": "pass", "tool-licence": "fail"}
    assert (run["score"]["fixed"], run["score"]["regressed"]) == (1, 0)
    assert (run["score"]["before"]["notapplicable"], run["score"]["after"]["notapplicable"]) == (2, 0)
    shown = anneal.cli("show", run["run_id"])
    assert "2 did not apply before and apply now: 1 pass, 1 fail" in shown.out


def test_an_item_whose_name_and_output_say_pass_is_failing_when_its_check_fails(anneal: Anneal, box: str) -> None:
    run = anneal.run("scratch", "--target", box, "--item", "gap-pass", "--no-memory")
    (item,) = run["items"]
    assert item["state"] == "escalated"
    assert item["final_outcome"] == "fail"


def test_a_fix_that_breaks_sshd_is_reverted_within_15_seconds_and_the_machine_answers_again(
    anneal: Anneal, box: str, on_machine: Callable[[str], str]
) -> None:
    run = anneal.run("scratch", "--target", box, "--profile", "reach", "--item", "breaks-sshd", "--no-memory")
    (item,) = run["items"]
    broke = item["story"][0]
    assert broke["failure_mode"] == "health_failure"
    assert broke["ending"] == "reverted"
    assert broke["seconds"] < 15
    assert item["state"] == "completed"
    assert "NoSuchOption" not in on_machine("cat /etc/ssh/sshd_config")


def test_a_fix_that_makes_a_unit_fail_is_reverted(anneal: Anneal, box: str, on_machine: Callable[[str], str]) -> None:
    run = anneal.run("scratch", "--target", box, "--profile", "reach", "--item", "fails-a-unit", "--no-memory")
    (item,) = run["items"]
    assert item["story"][0]["failure_mode"] == "health_failure"
    assert item["state"] == "completed"
    assert on_machine("ls /etc/systemd/system | grep -c sick || true").strip() == "0"


def test_a_second_run_on_a_fresh_machine_recalls_scripts_and_needs_fewer_steps(
    anneal: Anneal, box: str, lab: Lab, machine: str
) -> None:
    first = anneal.run("scratch", "--target", box, "--profile", "remembers")
    lab.reset(machine)
    second = anneal.run("scratch", "--target", box, "--profile", "remembers")
    assert second["score"]["after"] == first["score"]["after"]
    assert second["steps"] < first["steps"]
    rungs = {i["id"]: i["rung"] for i in second["items"]}
    assert rungs == {"first-rung": "recalled", "second-rung": "recalled", "never": ""}
    assert second["memory"]["fixed_by_recalled"] == 2
    assert second["memory"]["known_failures_skipped"] == 3
    assert second["memory"]["groups"] == 1
    assert {i["id"]: i["story"][0]["group"] for i in second["items"] if i["story"]} == {
        "first-rung": 1,
        "second-rung": 1,
    }


@pytest.mark.timeout(180)  # two runs and two boots
def test_a_group_in_which_one_recalled_script_fails_here_is_taken_back_and_tried_one_by_one(
    anneal: Anneal, box: str, lab: Lab, machine: str, on_machine: Callable[[str], str]
) -> None:
    lab.reset(machine)
    anneal.run("scratch", "--target", box, "--profile", "remembers")
    lab.reset(machine)
    on_machine("mkdir -p /etc/scratch; ln -s /nowhere/x /etc/scratch/second-rung")  # the script cannot write there
    run = anneal.run("scratch", "--target", box, "--profile", "remembers")
    items = {i["id"]: i for i in run["items"]}
    grouped = [i["story"][0] for i in (items["first-rung"], items["second-rung"])]
    assert {(a["group"], a["ending"], a["failure_mode"]) for a in grouped} == {(1, "reverted", "group_reverted")}
    assert items["first-rung"]["state"] == "completed"
    assert items["first-rung"]["rung"] == "recalled"
    assert items["second-rung"]["state"] == "escalated"
    assert on_machine("cat /etc/scratch/first-rung").strip() == "first-rung"
    assert run["memory"]["steps_saved"] == run["memory"]["known_failures_skipped"] * 2 - 3


def test_a_dry_run_shows_every_script_with_its_class_and_touches_nothing(
    anneal: Anneal, box: str, on_machine: Callable[[str], str]
) -> None:
    before = on_machine("find /etc /usr /var/lib -newer /proc/1 -type f | grep -v anneal | sort")
    done = anneal.cli("run", "scratch", "--target", box, "--dry-run", "--no-memory")
    assert done.code == 0, done.err
    assert "echo second-rung > /etc/scratch/second-rung" in done.out
    assert "reversible" in done.out
    assert on_machine("ls /etc/scratch 2>&1 || true").startswith("ls: cannot access")
    assert on_machine("find /etc /usr /var/lib -newer /proc/1 -type f | grep -v anneal | sort") == before


def test_an_excluded_item_is_skipped_with_the_reason_given(anneal: Anneal, box: str) -> None:
    run = anneal.run("scratch", "--target", box, "--exclude", "good=accepted risk 42", "--no-memory")
    skipped = next(i for i in run["items"] if i["id"] == "good")
    assert skipped["state"] == "skipped"
    assert "accepted risk 42" in skipped["reason"]


def test_a_cancelled_run_stops_between_steps_and_releases_the_target(anneal: Anneal, box: str) -> None:
    started = anneal.cli("run", "scratch", "--target", box, "--profile", "kills", "--json", "--no-watch", "--no-memory")
    run_id = started.json()["run_id"]
    time.sleep(1.5)
    assert anneal.cli("cancel", run_id).code == 0
    run = anneal.finished(run_id)
    assert run["state"] == "cancelled"
    assert "skipped" in states(run).values()
    targets = anneal.cli("target", "list", "--json").json()
    assert not any(t["leased_by"] for t in targets)


def test_the_exported_log_verifies_offline_and_one_flipped_byte_is_found(
    anneal: Anneal, box: str, tmp_path: Path
) -> None:
    run = anneal.run("scratch", "--target", box, "--item", "good", "--no-memory")
    file = tmp_path / "run.jsonl"
    assert anneal.cli("report", run["run_id"], "-o", str(file)).code == 0
    assert anneal.cli("audit", "verify", "--file", str(file)).code == 0
    lines = file.read_text().splitlines()
    event = json.loads(lines[5])
    event["at"] += 0.001
    file.write_text("\n".join([*lines[:5], json.dumps(event), *lines[6:]]) + "\n")
    done = anneal.cli("audit", "verify", "--file", str(file))
    assert done.code == 1
    assert "6" in done.out + done.err


def test_reports_come_in_html_json_and_jsonl(anneal: Anneal, box: str, tmp_path: Path) -> None:
    run = anneal.run("scratch", "--target", box, "--item", "good", "--no-memory")
    for name, mark in (("r.html", "<html"), ("r.json", '"run_id"'), ("r.jsonl", '"prev_hash"')):
        assert anneal.cli("report", run["run_id"], "-o", str(tmp_path / name)).code == 0
        assert mark in (tmp_path / name).read_text()
