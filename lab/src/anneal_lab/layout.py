"""Where the lab keeps things. Nothing is ever written outside this folder (and the machines' own namespaces).

HOME/
  ssh/id_ed25519{,.pub}                  the key made for the lab
  images/ID/{root,image.json}            built images; the newest is named in `current`
  current                                id of the image that new machines start from
  cache/                                 downloaded Debian packages
  machines/NAME/{machine.json,upper,work,merged,boot.log,generations/GEN,kept}
  locks/
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


def default_home() -> Path:
    """$ANNEAL_HOME or ~/.local/share/anneal, with the lab's own folder in it."""
    base = os.environ.get("ANNEAL_HOME")
    root = Path(base) if base else Path.home() / ".local/share/anneal"
    return root / "lab"


@dataclass(frozen=True, kw_only=True)
class MachinePaths:
    """The folders of one machine."""

    home: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.home / "machines" / self.name

    @property
    def record(self) -> Path:
        return self.folder / "machine.json"

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def merged(self) -> Path:
        return self.folder / "merged"

    @property
    def log(self) -> Path:
        return self.folder / "boot.log"

    @property
    def kept(self) -> Path:
        return self.folder / "kept"

    @property
    def generations(self) -> Path:
        return self.folder / "generations"

    @property
    def lock(self) -> Path:
        return self.home / "locks" / f"machine-{self.name}"

    @property
    def unique(self) -> str:
        """A name no other machine on this host has, also of another home: it marks processes and cgroups."""
        return f"anneal-{home_hash(self.home)[:8]}-{self.name}"

    @property
    def interface(self) -> str:
        """The host's end of the network pair; 15 bytes at most."""
        return f"ve-{home_hash(self.home)[:3]}{self.name}"


@dataclass(frozen=True, kw_only=True)
class HomePaths:
    """The folders of one lab home."""

    home: Path

    @property
    def key(self) -> Path:
        return self.home / "ssh" / "id_ed25519"

    @property
    def images(self) -> Path:
        return self.home / "images"

    @property
    def current(self) -> Path:
        return self.home / "current"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def machines(self) -> Path:
        return self.home / "machines"

    @property
    def build_lock(self) -> Path:
        return self.home / "locks" / "build"

    def machine(self, name: str) -> MachinePaths:
        return MachinePaths(home=self.home, name=name)


def home_hash(home: Path) -> str:
    """Tells machines of different homes apart on one host."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()
