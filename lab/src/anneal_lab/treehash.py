"""A hash over a whole tree: names, types, contents, modes, owners, device numbers, link targets, attributes, times.

Run as a script inside the mount namespace that sees the tree. Times of folders are left out: restoring a file
moves its folder's time, and nothing depends on that. Files' times are in.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys


def tree_hash(root: str) -> str:
    """SHA-256 over every entry in sorted order."""
    total = hashlib.sha256()
    pending = [root]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            total.update(_entry(root, entry.path))
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return total.hexdigest()


def _entry(root: str, path: str) -> bytes:
    info = os.lstat(path)
    facts = [os.path.relpath(path, root), oct(info.st_mode), info.st_uid, info.st_gid]
    if stat.S_ISREG(info.st_mode):
        facts += [info.st_mtime_ns, info.st_size, _content(path)]
    elif stat.S_ISLNK(info.st_mode):
        facts.append(os.readlink(path))
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        facts.append(info.st_rdev)
    facts += [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(_attributes(path))]
    return repr(facts).encode() + b"\n"


def _attributes(path: str) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def _content(path: str) -> str:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


if __name__ == "__main__":
    print(tree_hash(sys.argv[1]))
