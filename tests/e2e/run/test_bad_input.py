"""Bad input: a clear error that names the field, an exit code that says its kind, and nothing left half done."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from anneal_lab import Lab

from tests.support.stack import ROOT, SKILLS, Anneal, make_anneal


@pytest.mark.parametrize(
    ("args", "words", "code"),
    [
        (["no-such-skill", "--target", "box"], "no-such-skill", 4),
        (["scratch", "--target", "no-such-target"], "no-such-target", 4),
        (["scratch", "--target", "box", "--item", "no-such-rule"], "no-such-rule", 2),
        (["scratch", "--target", "box", "--profile", "no-such-profile"], "no-such-profile", 2),
        (["scratch", "--target", "box", "--exclude", "good"], "--exclude", 2),
        (["scratch", "--target", "box", "--time-budget", "soon"], "time-budget", 2),
        (["scratch", "--target", "box", "--max-steps", "2"], "max_steps", 2),
        (["scratch", "--target", "box", "--tailoring", "/no/such/file.xml"], "/no/such/file.xml", 2),
    ],
)
def test_a_bad_specification_is_refused_and_names_the_field(
    anneal: Anneal, box: str, args: list[str], words: str, code: int
) -> None:
    before = len(anneal.cli("runs", "--json").json())
    done = anneal.cli("run", *args)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert len(anneal.cli("runs", "--json").json()) == before


def test_a_broken_tailoring_file_is_refused_by_name(anneal: Anneal, box: str, tmp_path: Path) -> None:
    file = tmp_path / "tailoring.xml"
    file.write_text("<Tailoring><unclosed>")
    done = anneal.cli("run", "stig-rhel9", "--target", box, "--tailoring", str(file))
    assert done.code == 2, done.err
    assert "tailoring" in done.err


def test_a_second_run_on_a_leased_target_is_told_who_holds_it(anneal: Anneal, box: str) -> None:
    first = anneal.cli("run", "scratch", "--target", box, "--profile", "kills", "--json", "--no-watch", "--no-memory")
    run_id = first.json()["run_id"]
    until = 50
    while until and not any(t["leased_by"] for t in anneal.cli("target", "list", "--json").json()):
        until -= 1
    second = anneal.cli("run", "scratch", "--target", box)
    assert second.code == 5, second.err
    assert run_id in second.err
    assert anneal.finished(run_id)["state"] == "finished"


def test_a_wrong_key_and_an_unreachable_host_and_a_changed_host_key_are_told_apart(
    anneal: Anneal, box: str, lab: Lab, tmp_path: Path
) -> None:
    a = lab.access("e2e")
    wrong = tmp_path / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(wrong)], check=True)
    good_key = tmp_path / "host.pub"
    good_key.write_text(a.host_key + "\n")
    other_key = tmp_path / "wrong.pub"
    where = f"{a.user}@{a.host}"
    cases = [
        ("badkey", [where, "--key", str(wrong), "--host-key", str(good_key)], "login"),
        ("nohost", [f"{a.user}@{a.host}:1", "--key", str(a.key_path), "--host-key", str(good_key)], "login"),
        ("newkey", [where, "--key", str(a.key_path), "--host-key", str(other_key)], "host key"),
    ]
    for name, (ssh, *options), check in cases:
        added = anneal.cli("target", "add", name, "--ssh", ssh, *options)
        assert added.code == 0, added.err
        tested = anneal.cli("target", "test", name, "--json")
        assert tested.code == 1, name
        bad = [c for c in tested.json()["checks"] if not c["ok"]]
        assert [c["name"] for c in bad] == [check], tested.out
        run = anneal.run("scratch", "--target", name)
        assert run["state"] == "failed"
        assert run["reason"]
        assert anneal.cli("target", "remove", name).code == 0


def test_a_host_without_snapshots_runs_only_what_a_script_can_take_back(
    anneal: Anneal, box: str, lab: Lab, on_machine: Callable[[str], str], tmp_path: Path
) -> None:
    a = lab.access("e2e")
    host_key = tmp_path / "host.pub"
    host_key.write_text(a.host_key + "\n")
    options = ["--ssh", f"{a.user}@{a.host}:{a.port}", "--key", str(a.key_path), "--host-key", str(host_key)]
    assert anneal.cli("target", "add", "plain", *options).code == 0
    run = anneal.run("scratch", "--target", "plain", "--no-memory")
    assert run["state"] == "finished"
    states = {i["id"]: i["state"] for i in run["items"]}
    assert [i for i, s in states.items() if s == "completed"] == ["with-undo"]
    assert "no snapshots" in next(i["reason"] for i in run["items"] if i["id"] == "good")
    assert any("no snapshots" in n for n in run["notes"])
    assert on_machine("ls /etc/scratch").split() == ["with-undo"]
    assert anneal.cli("target", "remove", "plain").code == 0


def test_a_full_disk_on_the_target_ends_items_with_a_reason_and_loses_no_run(
    anneal: Anneal, box: str, on_machine: Callable[[str], str]
) -> None:
    on_machine("mkdir -p /var/lib/anneal; mount -t tmpfs -o size=16k tmpfs /var/lib/anneal")
    on_machine("cat /dev/zero > /var/lib/anneal/fill || true")
    run = anneal.run("scratch", "--target", box, "--item", "good", "--no-memory")
    assert run["state"] in ("finished", "failed")
    assert run["reason"] or run["items"][0]["reason"]
    assert anneal.cli("audit", "verify", run["run_id"]).code == 0


def test_a_broken_manifest_is_shown_with_its_field_and_keeps_no_other_skill_from_loading(
    tmp_path: Path, lab: Lab
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "skill.yaml").write_text("name: broken\nversion: one\nsummary: x\nprofiles: []\ndefault_profile: x\n")
    running = make_anneal(tmp_path / "home", skills=[broken, SKILLS / "scratch"])
    try:
        skills = {s["name"]: s for s in running.cli("skills", "--json").json()}
        assert "version" in skills["broken"]["error"]
        assert not skills["scratch"].get("error")
        done = running.cli("run", "broken", "--target", "box")
        assert done.code == 2, done.err
        assert "version" in done.err
    finally:
        running.stop()


def test_without_a_running_anneal_the_command_line_says_how_to_start_one(tmp_path: Path) -> None:
    env = {**os.environ, "ANNEAL_HOME": str(tmp_path)}
    command = [str(ROOT / ".venv" / "bin" / "anneal"), "runs", "--gateway", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)
    assert done.returncode == 3
    assert "anneal dev" in done.stderr
