"""What was touched in a folder since it was copied, and bringing the copy up to date by just that.

A listing holds one record for each entry: type, mode, owner, size, links, inode, both times, path. Nothing can change
in an entry and leave its record as it was: each change moves the change time, which no script can put back. So what
differs between two listings is all that was touched in between, and no contents need to be read to find it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from anneal_lab.model import LabError

# The kernel's clock for change times ticks every 10 ms at most: two changes within one tick bear the same time.
_TICK_NS = 100_000_000
_RECORD = rb"%y %m %U %G %s %n %i %T@ %C@ %P\0"
_FIELDS = _RECORD.count(b" ")


def take(folder: Path) -> bytes:
    """The records of a folder, itself included. Some thousand entries take `find` 10 ms.

    An entry that changed just now gets a record that equals no other: it counts as touched the next time.
    """
    now = time.time_ns()
    fresh = ["-newerct", f"@{(now - _TICK_NS) / 1e9:.9f}", "-printf", f"{now} %P\\0"]
    argv = ["find", str(folder), "(", *fresh, ")", "-o", "-printf", _RECORD.decode()]
    done = subprocess.run(argv, capture_output=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    # What vanishes meanwhile, where the machine could not be held, is no fault; a listing that broke off is one.
    faults = [line for line in done.stderr.splitlines() if not line.endswith(b"No such file or directory")]
    if faults or done.returncode not in (0, 1):
        raise LabError(f"find {folder} ended with {done.returncode}: {b' '.join(faults)[:200]!r}")
    return done.stdout


def touched(before: bytes, now: bytes) -> list[bytes]:
    """Paths whose records differ, those that came or went among them; a folder stands before what is in it."""
    differing = frozenset(before.split(b"\0")) ^ frozenset(now.split(b"\0"))
    return sorted({_path(record) for record in differing if record})


def _path(record: bytes) -> bytes:
    return record.split(b" ", _FIELDS if record[:1].isalpha() else 1)[-1]


def store(listing: bytes, copy: Path) -> None:
    """Keep the listing that belongs to a finished copy, beside the folder of copies."""
    place = _place(copy)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(_identity(copy) + b"\0" + listing)


def load(copy: Path) -> bytes | None:
    """The listing of a copy; None where there is none, or where it is of another copy of that name."""
    try:
        identity, _, listing = _place(copy).read_bytes().partition(b"\0")
    except FileNotFoundError:
        return None
    return listing if identity == _identity(copy) else None


def forget(copy: Path) -> None:
    _place(copy).unlink(missing_ok=True)


def _place(copy: Path) -> Path:
    return copy.parent.with_name("listings") / copy.name


def _identity(copy: Path) -> bytes:
    """A copy that was renamed, or whose folder was touched, is no longer the one that was listed."""
    info = copy.stat()
    return b"%d %d" % (info.st_ino, info.st_ctime_ns)


def bring_up_to_date(source: Path, target: Path, paths: Iterable[bytes]) -> None:
    """Make these entries of `target` equal to those of `source`: contents, links, owners, modes, attributes, times.

    paths: as `touched` gives them. The names of one file are touched together, so its links are found among them.
    """
    folders: list[tuple[bytes, bytes]] = []
    made: dict[int, bytes] = {}
    for path in paths:
        one, other = os.path.join(os.fsencode(source), path), os.path.join(os.fsencode(target), path)
        info = _lstat(one)
        if info is None:
            _remove(other)
        elif stat.S_ISDIR(info.st_mode):
            _make_folder(other)
            folders.append((one, other))
        else:
            _remove(other)
            if info.st_ino in made:
                os.link(made[info.st_ino], other, follow_symlinks=False)
            else:
                _make(one, other, info)
                _dress(one, other, info)
                made[info.st_ino] = other
    # Last and from within: what is made in a folder moves the folder's time.
    for one, other in reversed(folders):
        _dress(one, other, os.lstat(one))


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _remove(path: bytes) -> None:
    info = _lstat(path)
    if info is not None and stat.S_ISDIR(info.st_mode):
        shutil.rmtree(path)
    elif info is not None:
        os.unlink(path)


def _make_folder(path: bytes) -> None:
    info = _lstat(path)
    if info is None or not stat.S_ISDIR(info.st_mode):
        _remove(path)
        os.mkdir(path)


def _make(one: bytes, other: bytes, info: os.stat_result) -> None:
    """A new entry of the same kind and content."""
    if stat.S_ISREG(info.st_mode):
        shutil.copyfile(one, other, follow_symlinks=False)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(one), other)
    else:
        os.mknod(other, info.st_mode, info.st_rdev)


def _dress(one: bytes, other: bytes, info: os.stat_result) -> None:
    """Owner, attributes (access lists are among them), mode, times. In this order: a new owner takes rights away."""
    os.chown(other, info.st_uid, info.st_gid, follow_symlinks=False)
    wanted = {name: os.getxattr(one, name, follow_symlinks=False) for name in _attributes(one)}
    for name in _attributes(other):
        if name not in wanted:
            os.removexattr(other, name, follow_symlinks=False)
    for name, value in wanted.items():
        os.setxattr(other, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(other, stat.S_IMODE(info.st_mode))
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _attributes(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)
