"""What the image is made of: data files beside the code, and the hash that says whether an image is up to date."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from anneal_lab.model import LabError

_HERE = Path(__file__).parent
# The modules that decide what ends up in the image. A change in booting or snapshots needs no new image.
_CODE = ("build.py", "rpms.py", "rpmspec.py", "debs.py", "chroot.py", "recipe.py")


def folder(name: str) -> Path:
    """A data folder of the lab: inside the package in a wheel, beside `src` in a checkout."""
    packed = _HERE / f"{name}_data"
    beside = _HERE.parents[1] / name
    for place in (packed, beside):
        if place.is_dir():
            return place
    raise LabError(f"the lab's folder {name!r} is missing beside the package; reinstall anneal-lab")


def words(name: str) -> list[str]:
    """Words of a recipe text file; `#` starts a comment."""
    lines = (folder("recipe") / name).read_text().splitlines()
    return [word for line in lines for word in line.split("#", 1)[0].split()]


def recipe_hash(*extra: str) -> str:
    """SHA-256 over every recipe file (name, mode, content), the building code and what the caller adds."""
    total = hashlib.sha256()
    for part in ("recipe", "rpms"):
        root = folder(part)
        for path in sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink()):
            total.update(f"{part}/{path.relative_to(root)} {_kind(path)}\n".encode())
            total.update(os.readlink(path).encode() if path.is_symlink() else path.read_bytes())
    for name in _CODE:
        total.update((_HERE / name).read_bytes() if (_HERE / name).exists() else b"")
    for text in extra:
        total.update(text.encode())
    return total.hexdigest()


def _kind(path: Path) -> str:
    return "x" if os.access(path, os.X_OK) else "-"
