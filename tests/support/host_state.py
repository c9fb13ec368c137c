"""What a lab may not change of its host: settings, listeners, mounts, network links."""

import contextlib
import os
import re
from pathlib import Path

from anneal_lab.proc import run

State = dict[str, list[str]]

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
    found = {}
    for folder, _, files in os.walk("/proc/sys"):
        for file in files:
            path = Path(folder, file)
            name = str(path.relative_to("/proc/sys")).replace("/", ".")
            if re.fullmatch(MOVING, name):
                continue
            with contextlib.suppress(OSError, UnicodeDecodeError):  # write-only ones, and those of another namespace
                found[name] = path.read_text()
    return found


def listeners() -> set[str]:
    """Addresses that a lab process listens on; ports of other tests on this machine come and go."""
    lines = run(["ss", "-Hltnup"]).splitlines()
    return {line for line in lines if re.search(r'"(sshd|systemd|chronyd|rpcbind|systemd-nspawn|rsyslogd)"', line)}


def mounts() -> set[str]:
    """What is mounted on the host, and nothing of a lab may be."""
    return set(Path("/proc/mounts").read_text().splitlines())


def links() -> set[str]:
    """Network interfaces, without those of machines that come and go."""
    return {line.split()[0] for line in run(["ip", "-br", "link"]).splitlines() if not line.startswith("ve-")}


def host() -> State:
    """All of it, as plain data that can be kept and compared."""
    settings = [f"{name} = {value}" for name, value in sorted(sysctls().items())]
    return {
        "sysctls": settings,
        "listeners": sorted(listeners()),
        "mounts": sorted(mounts()),
        "links": sorted(links()),
    }


def same(before: State) -> None:
    """Fails, part by part, where the host is not as it was."""
    now = host()
    for part, was in before.items():
        assert now[part] == was, part
