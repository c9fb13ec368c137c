"""The records and names that the lab's callers see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# An interface name has 15 bytes: "ve-" + 3 of the home's hash + the machine's name.
_MACHINE = re.compile(r"[a-z][a-z0-9-]{0,8}")
_GENERATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class LabError(Exception):
    """Something the lab could not do. The message says what, and where there is one, the next step."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to reach a machine. `host_key` is in OpenSSH form, so that clients can check it strictly."""

    host: str
    port: int
    user: str
    key_path: Path
    host_key: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One reason why the lab cannot work here, and the command that mends it."""

    what: str
    why: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class MachineStatus:
    """State is "running", "stopped" or "absent"; `access` is given while the machine runs."""

    name: str
    state: str
    image: str
    access: Access | None
    generations: tuple[str, ...]


def check_machine_name(name: str) -> str:
    """Names become interface names and folder names: refuse early, naming the rule."""
    if not _MACHINE.fullmatch(name):
        raise LabError(f"machine name {name!r} is not valid: 1 to 9 characters, a-z, 0-9 and '-', a letter first")
    return name


def check_generation_name(generation: str) -> str:
    """Generation names become folder names."""
    if not _GENERATION.fullmatch(generation):
        raise LabError(
            f"generation name {generation!r} is not valid: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', "
            "a letter or digit first"
        )
    return generation
