"""Fixtures of the end-to-end tests: one anneal, one clone of the lab's machine."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anneal_lab import Lab

from tests.support.stack import DEFAULT_HOME, ROOT, SKILLS, Anneal, make_anneal


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab, built by `make test` before the tests start."""
    built = Lab(DEFAULT_HOME / "lab")
    assert built.image_id(), "no lab image: run `make lab-build` (it needs root)"
    return built


@pytest.fixture(scope="package")
def anneal(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Anneal]:
    """One anneal for the tests of this folder, with the scratch skill and the real one."""
    skills = [SKILLS / "scratch", ROOT / "skills" / "stig-rhel9"]
    # A host that cannot be reached is waited for as long as these say.
    env = {"ANNEAL_RETRY_WAITS_S": "[0.2, 0.2, 0.2]"}
    running = make_anneal(tmp_path_factory.mktemp("home"), skills=skills, env=env)
    yield running
    running.stop()


@pytest.fixture(scope="package")
def machine(lab: Lab, anneal: Anneal) -> Iterator[str]:
    lab.clone("", "e2e")
    done = anneal.cli("target", "add", "box", "--lab", "e2e")
    assert done.code == 0, done.err
    yield "e2e"
    lab.delete("e2e")


@pytest.fixture
def box(lab: Lab, machine: str) -> str:
    """Target `box`: a pristine machine for each test."""
    lab.reset(machine)
    return "box"


@pytest.fixture
def on_machine(lab: Lab, machine: str, tmp_path: Path) -> Callable[[str], str]:
    """Runs a script on the machine as root, beside anneal; returns what it printed."""

    def run(script: str) -> str:
        a = lab.access(machine)
        known = f"{a.host} {a.host_key}\n"
        file = tmp_path / "known_hosts"
        file.write_text(known)
        options = ["-o", f"UserKnownHostsFile={file}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        command = ["ssh", "-i", str(a.key_path), *options, "-p", str(a.port), f"{a.user}@{a.host}", "sudo sh"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
