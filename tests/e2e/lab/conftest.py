"""A real lab: the image of the default home (built if need be) and machines with names of the test's own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anneal_lab import Lab
from anneal_lab.proc import run
from anneal_lab.sshkeys import ssh_argv

Remote = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs root and boots machines."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab() -> Lab:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    lab = Lab()
    lab.build(progress=lambda _line: None)
    return lab


@pytest.fixture
def names(lab: Lab) -> Iterator[list[str]]:
    """Three machine names of this process's own; what stands under them afterwards is removed."""
    own = [f"t{os.getpid() % 100000:05d}{letter}" for letter in "abc"]
    yield own
    for name in own:
        lab.delete(name)


@pytest.fixture
def machine(lab: Lab, names: list[str]) -> str:
    """A running pristine machine."""
    lab.up(names[0])
    return names[0]


@pytest.fixture
def remote(lab: Lab, tmp_path: Path) -> Remote:
    """Run a shell line on a machine over SSH, host key checked; returns what it prints."""

    def call(name: str, line: str) -> str:
        return run(ssh_argv(lab.access(name), tmp_path / f"known-{name}", [line]), timeout=60)

    return call
