"""Building the image: into a folder beside, in steps that say how long they take, published by a rename.

A build that is killed leaves a folder that the next build removes; the image in use is never touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from anneal_lab import debs, images, machine, recipe, rpms, sshkeys
from anneal_lab.chroot import inside
from anneal_lab.layout import HomePaths
from anneal_lab.locks import locked
from anneal_lab.proc import run

CONTENT = Path("/usr/share/xml/scap/ssg/content/ssg-rhel9-ds.xml")


class _Steps:
    """Says what is being done, with the seconds since the start; silence of a minute looks like a hang."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._start = time.monotonic()

    def say(self, what: str) -> None:
        self._progress(f"[{time.monotonic() - self._start:5.1f} s] {what}")


def build(home: HomePaths, *, force: bool, progress: Callable[[str], None]) -> str:
    """Build unless the current image has this recipe; returns the current image's id."""
    with locked(home.build_lock, timeout=900, what="the image build"):
        sshkeys.make_key(home.key, "anneal-lab")
        wanted = recipe.recipe_hash(sshkeys.public_key(home.key))
        now = images.current(home)
        if now is not None and not force and images.load(home, now).recipe == wanted:
            progress(f"image {now} is up to date")
            return now
        steps = _Steps(progress)
        _clean(home)
        image = _make(home, wanted, steps)
        _clean(home)
        steps.say(f"image {image} is ready")
        return image


def _clean(home: HomePaths) -> None:
    """Drop images nobody uses; those under an existing machine stay until it is reset or deleted."""
    records = [machine.load(home.machine(name)) for name in machine.names(home)]
    images.remove_unused(home, {record.image for record in records if record is not None})


def _make(home: HomePaths, wanted: str, steps: _Steps) -> str:
    image = f"{wanted[:12]}-{uuid.uuid4().hex[:6]}"
    work = home.images / f".{image}"
    root = work / "root"
    root.mkdir(parents=True)
    # Images hold host keys and password hashes: closed to other users, whatever the modes inside say.
    os.chmod(work, 0o700)
    packages = recipe.words("debian-packages.txt")
    steps.say(f"debootstrap: {len(packages)} packages and what they depend on (about 90 s)")
    debs.debootstrap(root, packages, home.cache / "debs")
    steps.say("shaping the root")
    _shape(home, root)
    rpms.furnish(root, work / "rpms", steps.say)
    shutil.rmtree(work / "rpms", ignore_errors=True)
    _finish(root)
    host_key = _host_key(root)
    images.publish(home, images.Image(id=image, recipe=wanted, host_key=host_key, root=root), work)
    return image


def _shape(home: HomePaths, root: Path) -> None:
    """EL9's files and settings over Debian's, by the recipe's own script run inside the root."""
    shutil.copytree(recipe.folder("recipe") / "rootfs", root, dirs_exist_ok=True, symlinks=True)
    content = root / CONTENT.relative_to("/")
    content.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONTENT, content)
    script = (recipe.folder("recipe") / "setup.sh").read_text()
    inside(root, ["sh", "-ec", script])
    _write_key(root, "home/anneal", sshkeys.public_key(home.key), owner=1000)
    _write_key(root, "root", sshkeys.public_key(home.key), owner=0)


def _write_key(root: Path, where: str, key: str, *, owner: int) -> None:
    folder = root / where / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    keys = folder / "authorized_keys"
    keys.write_text(key + "\n")
    keys.chmod(0o600)
    for path in (folder, keys):
        os.chown(path, owner, owner)


def _host_key(root: Path) -> str:
    """Host keys are made per image: every machine of it can be verified strictly from its first second."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", root / "etc/ssh/ssh_host_ed25519_key"])
    run(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-C", "", "-f", root / "etc/ssh/ssh_host_rsa_key"])
    words = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    return " ".join(words[:2])


def _finish(root: Path) -> None:
    """Leave no trace of the building host, and of Debian only what the machine needs.

    Documentation and translations are left out as in EL's own container images: rules that walk the file tree
    take as long as it is large. Debian's package manager goes too: on EL there is dnf and no other.
    """
    for pattern in recipe.words("left-out.txt"):
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("# The lab has no name server.\n")
    (root / "etc/hostname").write_text("lab\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost lab\n::1 localhost\n")
    (root / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")
    subprocess.run(["sync", "-f", str(root)], check=False)
