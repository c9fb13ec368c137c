"""The lab never touches the host."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from anneal_lab import Lab
from anneal_lab.layout import default_home
from anneal_lab.proc import run

from .conftest import Remote

BUILD_GOAL_S = 240.0
SLACK = 2.0
# Settings that move by themselves: counters, random numbers, clocks, and what the kernel scales with memory in use.
MOVING = (
    r"fs\.(dentry-state|file-nr|inode-nr|inode-state|aio-nr|quota\..*)"
    r"|kernel\.(random\..*|ns_last_pid|pty\.nr|hostname_counter|tainted|shm_next_id|msg_next_id|sem_next_id)"
    r"|net\.netfilter\.nf_conntrack_count"
    r"|net\.ipv4\.(tcp_mem|udp_mem)"
    r"|kernel\.sched_domain\..*|debug\..*"
    # One line per interface: machines of other tests come and go. The `all` and `default` ones are compared.
    r"|net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.ve-.*"
)


def sysctls() -> dict[str, str]:
    """Every readable setting of the host that does not move by itself."""
    lines = subprocess.run(["sysctl", "-a"], capture_output=True, text=True, check=False).stdout.splitlines()
    pairs = (line.split(" = ", 1) for line in lines if " = " in line)
    return {name: value for name, value in pairs if not re.fullmatch(MOVING, name)}


def listeners() -> set[str]:
    """Addresses that a lab process listens on; ports of other tests on this machine come and go."""
    lines = run(["ss", "-Hltnup"]).splitlines()
    return {line for line in lines if re.search(r'"(sshd|systemd|chronyd|rpcbind|systemd-nspawn|rsyslogd)"', line)}


def mounts() -> set[str]:
    """What is mounted on the host, and nothing of a lab may be."""
    return set(Path("/proc/mounts").read_text().splitlines())


def host() -> tuple[dict[str, str], set[str], set[str], set[str]]:
    links = {line.split()[0] for line in run(["ip", "-br", "link"]).splitlines() if not line.startswith("ve-")}
    return sysctls(), listeners(), mounts(), links


def same(before: tuple[dict[str, str], set[str], set[str], set[str]]) -> None:
    for was, now in zip(before, host(), strict=True):
        assert now == was


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


@pytest.mark.timeout(600)
def test_a_build_from_nothing_leaves_the_host_as_it_was_and_is_a_no_op_the_second_time(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    cache = default_home() / "cache"
    if cache.is_dir():
        # Packages that were downloaded before: the mirror need not serve them again for a test.
        shutil.copytree(cache, tmp_path / "lab/cache")
    before = host()
    lines: list[str] = []
    begin = time.monotonic()
    image = lab.build(progress=lines.append)
    took = time.monotonic() - begin
    same(before)
    assert took < BUILD_GOAL_S * SLACK
    assert len(lines) >= 5
    assert all(re.match(r"\[ *\d+\.\d s\] ", line) for line in lines)
    begin = time.monotonic()
    assert lab.build(progress=lines.append) == image
    assert time.monotonic() - begin < 1
    _nothing_but_the_image(tmp_path / "lab", image)
    try:
        lab.up("lab")
        same(before)
    finally:
        lab.delete("lab")
    same(before)


def _nothing_but_the_image(home: Path, image: str) -> None:
    """Published by a rename: no half-made folder stays, and the image names no mirror."""
    assert [entry.name for entry in (home / "images").iterdir()] == [image]
    root = home / "images" / image / "root"
    assert not list(root.glob("etc/apt/sources.list*"))
    assert not list(root.glob("var/cache/apt/archives/*.deb"))
