"""Built images: which there are, which is current, and what a client must know of one."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from anneal_lab.layout import HomePaths
from anneal_lab.model import LabError


@dataclass(frozen=True, kw_only=True)
class Image:
    """A finished image. `recipe` is the hash of everything it was made from."""

    id: str
    recipe: str
    host_key: str
    root: Path


def load(home: HomePaths, image: str) -> Image:
    folder = home.images / image
    try:
        facts = json.loads((folder / "image.json").read_text())
        return Image(id=image, recipe=facts["recipe"], host_key=facts["host_key"], root=folder / "root")
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"image {image!r} is missing or damaged; `anneal-lab build --force` makes a new one") from error


def current(home: HomePaths) -> str | None:
    """Id of the newest image; None when there is none."""
    try:
        image = home.current.read_text().strip()
    except FileNotFoundError:
        return None
    return image if image and (home.images / image / "image.json").exists() else None


def require_current(home: HomePaths) -> str:
    image = current(home)
    if image is None:
        raise LabError("there is no lab image yet; `anneal-lab build` makes one (about 3 minutes)")
    return image


def publish(home: HomePaths, image: Image, built: Path) -> None:
    """Make a built folder the current image: the folder's rename, then the pointer's, so no half state shows."""
    facts = {key: value for key, value in asdict(image).items() if key not in ("id", "root")}
    (built / "image.json").write_text(json.dumps(facts))
    target = home.images / image.id
    built.rename(target)
    part = home.current.with_suffix(".part")
    part.write_text(image.id + "\n")
    os.replace(part, home.current)


def remove_unused(home: HomePaths, used: set[str]) -> None:
    """Remove images that are neither current nor under a machine's overlay, and what killed builds left."""
    keep = used | {current(home) or ""}
    if not home.images.is_dir():
        return
    for folder in home.images.iterdir():
        if folder.name not in keep:
            shutil.rmtree(folder)
