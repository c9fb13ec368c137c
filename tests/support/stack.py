"""`anneal dev` in a process tree of its own, for tests and benchmarks that want everything real."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SKILLS = ROOT / "tests" / "support" / "skills"
DEFAULT_HOME = Path(os.environ.get("ANNEAL_HOME", Path.home() / ".local" / "share" / "anneal"))


def free_base() -> int:
    """A port base with a hundred free ports above it, as far as can be told."""
    for base in range(21000, 60000, 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", base)) != 0:
                return base
    raise RuntimeError("no free ports")


@dataclass
class Done:
    """How a command of the CLI ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Anneal:
    """A running `anneal dev` and the command line against it."""

    home: Path
    base: int
    env: dict[str, str] = field(default_factory=dict)

    def cli(self, *args: str, timeout: float = 240) -> Done:
        env = {**os.environ, "ANNEAL_HOME": str(self.home), **self.env}
        command = [sys.executable, "-m", "anneal_cli", *args]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout, check=False)
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def start(self, *options: str) -> None:
        done = self.cli("dev", "--detach", "--port-base", str(self.base), *options, timeout=90)
        assert done.code == 0, done.err + done.out

    def stop(self) -> None:
        self.cli("dev", "stop", timeout=60)

    def run(self, *args: str, timeout: float = 240) -> dict[str, Any]:
        """Runs a skill to its end; returns the run's document."""
        started = self.cli("run", *args, "--json", "--no-watch", timeout=timeout)
        assert started.code == 0, started.err + started.out
        return self.finished(started.json()["run_id"], timeout=timeout)

    def finished(self, run_id: str, timeout: float = 240) -> dict[str, Any]:
        """Waits for the run's end."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            shown = self.cli("show", run_id, "--json")
            if shown.code == 0 and shown.json()["state"] in ("finished", "failed", "cancelled"):
                document: dict[str, Any] = shown.json()
                return document
            time.sleep(0.3)
        raise AssertionError(f"{run_id} did not end: {self.log_tail()}")

    def part(self, name: str) -> dict[str, Any]:
        parts = self.cli("dev", "status", "--json").json()["parts"]
        found: dict[str, Any] = next(p for p in parts if p["name"] == name)
        return found

    def log_tail(self, lines: int = 40) -> str:
        log = self.home / "log" / "anneal.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "no log"


def make_anneal(home: Path, *options: str, skills: Sequence[Path] = (), env: dict[str, str] | None = None) -> Anneal:
    """Starts anneal with these skill folders; its lab is the one that was built for everybody."""
    home.mkdir(parents=True, exist_ok=True)
    folder = home / "skills"
    folder.mkdir(exist_ok=True)
    for skill in skills:
        link = folder / skill.name
        if not link.exists():
            link.symlink_to(skill)
    if not (home / "lab").exists():
        (home / "lab").symlink_to(DEFAULT_HOME / "lab")
    anneal = Anneal(home=home, base=free_base(), env={"ANNEAL_SKILLS_DIR": str(folder), **(env or {})})
    anneal.start(*(options or ("--no-model",)))
    return anneal
