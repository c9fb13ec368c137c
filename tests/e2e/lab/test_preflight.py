"""What the lab says when it cannot work, before anything is half done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from anneal_lab import Lab, LabError, main, preflight
from anneal_lab import preflight as exported
from anneal_lab.model import check_generation_name, check_machine_name
from anneal_lab.network import POOL, allocate, routes_in_use

checks = sys.modules["anneal_lab.preflight"]


def test_this_host_is_fit_or_says_what_is_missing() -> None:
    for problem in preflight():
        assert problem.what
        assert problem.why
        assert problem.mend


def test_missing_packages_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_present", lambda what: what not in ("rsync", "debootstrap"))
    found = [problem for problem in exported() if "missing" in problem.what]
    assert len(found) == 1
    assert found[0].mend.endswith("debootstrap rsync")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert any(problem.what == "not running as root" for problem in exported())


def test_a_full_disk_is_told_before_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_DISK_GIB", 10**9)
    assert any("GiB free" in problem.what for problem in exported())


@pytest.mark.parametrize("name", ["", "Lab", "1a", "a" * 10, "a/b", "a b", "-a", "..", "ä"])
def test_bad_machine_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="not valid"):
        check_machine_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "x" * 65])
def test_bad_generation_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="not valid"):
        check_generation_name(name)


def test_an_up_without_an_image_names_the_next_step(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    assert lab.image_id() is None
    with pytest.raises(LabError, match="anneal-lab build"):
        lab.up("a")
    assert lab.status("a").state == "absent"


def test_addresses_keep_clear_of_routes_and_of_each_other(tmp_path: Path) -> None:
    first = allocate(tmp_path, "a", [])
    assert allocate(tmp_path, "a", []) == first
    second = allocate(tmp_path, "a", [first])
    assert second != first
    assert all(str(route) != second for route in routes_in_use())
    with pytest.raises(LabError, match="no free network"):
        allocate(tmp_path, "a", [str(POOL)])


def test_status_speaks_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(tmp_path / "lab"), "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"image": None, "machines": []}


def test_an_error_is_one_line_and_status_1(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "anneal_lab", "--home", str(tmp_path / "lab"), "ssh", "-n", "nosuch", "true"]
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "anneal-lab up nosuch" in done.stderr
