"""The lab never touches the host."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from anneal_lab import Lab
from anneal_lab.layout import default_home

from tests.support.host_state import host, same
from tests.support.watched_build import record_of

from .conftest import Remote


def test_running_and_hardening_a_machine_leaves_the_host_as_it_was(lab: Lab, names: list[str], remote: Remote) -> None:
    before = host()
    lab.up(names[0])
    remote(
        names[0],
        "sudo sh -c 'sysctl -q -w net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=1 kernel.kptr_restrict=2 || true'",
    )
    remote(names[0], "sudo sh -c 'sysctl --system >/dev/null 2>&1; dnf -q -y install tmux; true'")
    same(before)
    lab.snapshot(names[0], "g1")
    lab.restore(names[0], "g1")
    lab.clone(names[0], names[1])
    same(before)
    lab.delete(names[0])
    lab.delete(names[1])
    same(before)


@pytest.fixture
def build_record(lab: Lab, tmp_path: Path) -> dict[str, Any]:
    """The record of the image's build; where nobody watched it, a build from nothing in a home of its own."""
    kept = record_of(lab.image_id() or "")
    if kept.is_file():
        record: dict[str, Any] = json.loads(kept.read_text())
        return record
    before, lines = host(), list[str]()
    Lab(tmp_path / "lab").build(progress=lines.append)
    return {"before": before, "after": host(), "progress": lines}


@pytest.mark.timeout(600)
def test_a_build_from_nothing_leaves_the_host_as_it_was_and_tells_its_progress(build_record: dict[str, Any]) -> None:
    assert build_record["after"] == build_record["before"]
    assert len(build_record["before"]["sysctls"]) > 100
    assert len(build_record["progress"]) >= 5
    assert all(re.match(r"\[ *\d+\.\d s\] ", line) for line in build_record["progress"])


def test_a_second_build_does_nothing_and_only_whole_images_are_there(lab: Lab) -> None:
    image, lines = lab.image_id(), list[str]()
    assert lab.build(progress=lines.append) == image
    assert len(lines) <= 1
    _nothing_but_images(default_home(), image or "")


def _nothing_but_images(home: Path, image: str) -> None:
    """Published by a rename: no half-made folder stays, and the image names no mirror."""
    assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{6}", entry.name) for entry in (home / "images").iterdir())
    root = home / "images" / image / "root"
    assert not list(root.glob("etc/apt/sources.list*"))
    assert not list(root.glob("var/cache/apt/archives/*.deb"))
