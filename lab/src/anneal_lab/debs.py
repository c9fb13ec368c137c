"""Debian's part: the root by debootstrap, and the .deb files that become payloads of our RPMs.

The mirror is whatever this machine's apt is set to. No address is written down anywhere in the lab.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from anneal_lab.chroot import inside
from anneal_lab.model import LabError
from anneal_lab.proc import run

SUITE = "bookworm"
_TARGETS = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]


def mirror() -> str:
    """The address from which this machine's apt gets Debian 12."""
    for line in run(_TARGETS).splitlines():
        suite, component, address = line.split(maxsplit=2)
        if suite == SUITE and component == "main":
            return address
    raise LabError(f"apt on this machine knows no mirror of Debian {SUITE} main; see /etc/apt, then `apt-get update`")


def debootstrap(root: Path, packages: Sequence[str], cache: Path) -> None:
    """A Debian root with the given packages and what they depend on; recommended packages are left out."""
    cache.mkdir(parents=True, exist_ok=True)
    argv = ["unshare", "--mount", "--propagation", "private", "debootstrap", "--variant=minbase"]
    argv += [f"--include={','.join(packages)}", f"--cache-dir={cache}", SUITE, str(root), mirror()]
    env = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    env |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    # No fsync for each file: a build that is cut short is thrown away whole.
    env["DPKG_FORCE"] = "unsafe-io"
    try:
        run(argv, timeout=900, env=env)
    except LabError as error:
        log = root / "debootstrap/debootstrap.log"
        words = log.read_text(errors="replace")[-1500:] if log.exists() else ""
        raise LabError(f"debootstrap failed: {error}\n{words}") from error


def fetch(root: Path, packages: Sequence[str], target: Path) -> None:
    """Download packages (not what they depend on) with the apt of the new root, checked by its keys."""
    drop = "/var/cache/anneal-debs"
    (root / drop.lstrip("/")).mkdir(parents=True)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    script = f'apt-get -q update && cd {drop} && apt-get -q -o APT::Sandbox::User=root download "$@"'
    inside(root, ["sh", "-ec", script, "sh", *packages], network=True, timeout=300)
    shutil.copytree(root / drop.lstrip("/"), target, dirs_exist_ok=True)
    shutil.rmtree(root / drop.lstrip("/"))


def find(folder: Path, package: str) -> Path:
    """The downloaded file of a package."""
    found = sorted(folder.glob(f"{package}_*.deb"))
    if not found:
        raise LabError(f"package {package} was not downloaded; does Debian {SUITE} still have it?")
    return found[-1]


def version(deb: Path) -> str:
    """Upstream version, without Debian's epoch and revision: what the EL package of that software would be called."""
    return upstream(run(["dpkg-deb", "--field", deb, "Version"]).strip())


def upstream(full: str) -> str:
    plain = full.split(":", 1)[-1].rsplit("-", 1)[0]
    return plain.replace("~", "").replace("-", ".").split("+", 1)[0]


def extract(deb: Path, target: Path) -> None:
    run(["dpkg-deb", "--extract", deb, target])
