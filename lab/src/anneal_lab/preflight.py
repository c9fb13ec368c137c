"""What the lab needs of this host, what is missing, and the command that mends it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from anneal_lab.layout import default_home
from anneal_lab.model import LabError, Problem
from anneal_lab.proc import run, succeeds

# Command or file that must be there, and the Debian package that brings it.
_NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "rpmbuild": "rpm",
    "rpmsign": "rpm",
    "gpg": "gnupg",
    "createrepo_c": "createrepo-c",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "dpkg-deb": "dpkg",
    "oscap": "openscap-scanner",
    "/usr/share/xml/scap/ssg/content/ssg-rhel9-ds.xml": "ssg-nondebian",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
_DISK_GIB = 4
_ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_packages() -> list[str]:
    """Debian packages to install, each once."""
    return sorted({package for what, package in _NEEDED.items() if not _present(what)})


def _present(what: str) -> bool:
    if what.startswith("/"):
        return Path(what).exists()
    return shutil.which(what, path=f"{os.environ.get('PATH', '')}:{_ADMIN_PATH}") is not None


def preflight(home: Path | None = None) -> list[Problem]:
    """Everything that would stop the lab here; an empty list means it can be built and booted."""
    place = home or default_home()
    found = [*_root(), *_packages()]
    if not found:
        found += _kernel()
    return [*found, *_disk(place), *_path(place)]


def _root() -> list[Problem]:
    if os.geteuid() == 0:
        return []
    why = "mounting an overlay and booting a container with its own network need root"
    return [Problem(what="not running as root", why=why, mend="run the same command with sudo")]


def _packages() -> list[Problem]:
    missing = missing_packages()
    if not missing:
        return []
    what = f"missing Debian packages: {' '.join(missing)}"
    mend = f"apt-get update && apt-get install --no-install-recommends {' '.join(missing)}"
    return [Problem(what=what, why="the lab is built and booted with them", mend=mend)]


def _kernel() -> list[Problem]:
    """Tried for real: what a kernel lists and what a container may use are two things."""
    found = []
    spaces = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--propagation", "private"]
    if not succeeds([*spaces, "true"]):
        why = "each machine lives in namespaces of its own"
        mend = "run on a host or in a container that may create namespaces (CAP_SYS_ADMIN)"
        return [Problem(what="namespaces cannot be created", why=why, mend=mend)]
    if not succeeds([*spaces, "ip", "link", "add", "anneal0", "type", "veth", "peer", "name", "anneal1"]):
        why = "each machine is reached over a network pair of its own"
        found.append(Problem(what="veth pairs cannot be created", why=why, mend="modprobe veth"))
    if not _overlay(spaces):
        why = "machines share one image through it, which makes reset and snapshots fast"
        mend = "modprobe overlay; the lab's folder must be on a plain file system such as ext4 or xfs"
        found.append(Problem(what="overlay mounts do not work", why=why, mend=mend))
    return found


def _overlay(spaces: list[str]) -> bool:
    place = default_home().parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        for name in ("lower", "upper", "work", "merged"):
            (Path(scratch) / name).mkdir()
        script = 'cd "$1" && mount -t overlay t -o lowerdir=lower,upperdir=upper,workdir=work merged'
        return succeeds([*spaces, "sh", "-c", script, "sh", scratch])


def _disk(place: Path) -> list[Problem]:
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 2**30
    if free >= _DISK_GIB:
        return []
    why = f"an image, its package cache and some machines take about {_DISK_GIB} GiB"
    mend = "free some space, or set ANNEAL_HOME to a folder on a larger disk"
    return [Problem(what=f"only {free:.1f} GiB free under {there}", why=why, mend=mend)]


def _path(place: Path) -> list[Problem]:
    if not any(sign in str(place) for sign in ":\n"):
        return []
    why = "mount and debootstrap cannot take such a path"
    return [
        Problem(what=f"the lab's folder {str(place)!r} has a ':' in it", why=why, mend="set ANNEAL_HOME to another one")
    ]


def install_host_packages(progress: Callable[[str], None] = print) -> None:
    """Install with apt what is missing, and nothing else."""
    missing = missing_packages()
    if not missing:
        progress("all host packages are there")
        return
    if os.geteuid() != 0:
        raise LabError(f"installing {' '.join(missing)} needs root; run the same command with sudo")
    progress(f"installing {' '.join(missing)} (about 30 s)")
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-q", "update"], timeout=300, env=env)
    run(["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing], timeout=900, env=env)
    progress("host packages installed")
