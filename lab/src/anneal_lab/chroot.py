"""Commands inside the root while it is being built: in namespaces of their own, with the kernel's settings read-only.

A plain chroot shares /proc with the host: a package script that calls sysctl there changes the host. Here
/proc/sys is read-only, mounts vanish with the command, and there is no network unless asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from anneal_lab.proc import run

_ENTER = """
set -eu
root=$1; shift
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
exec chroot "$root" "$@"
"""


def inside(root: Path, argv: Sequence[str], *, network: bool = False, timeout: float = 300) -> str:
    """Run a command in `root`; it sees no process, mount or (unless asked) network of the host."""
    spaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    if not network:
        spaces.append("--net")
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    env |= {name: value for name, value in os.environ.items() if network and name.lower().endswith("_proxy")}
    return run(["unshare", *spaces, "sh", "-c", _ENTER, "sh", root, *argv], timeout=timeout, env=env)
