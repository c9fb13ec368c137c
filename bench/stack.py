"""`anneal dev` for a benchmark: our own child in the foreground, with a data folder that is gone afterwards."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anneal_cli.dev.plan import OFFSETS

from bench.figures import BenchError
from bench.host import ROOT
from bench.machines import uninterrupted
from tests.support.stack import DEFAULT_HOME, Anneal

_STOP_S: Final = 60.0
_BASES: Final = range(22_000, 32_000, 100)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A running `anneal dev`. start_s: from the command to its word that everything is ready."""

    anneal: Anneal
    start_s: float

    @property
    def token(self) -> str:
        return (self.anneal.home / "token").read_text().strip()

    def address(self, part: str) -> str:
        """Where a part listens."""
        return f"127.0.0.1:{self.anneal.base + OFFSETS[part]}"

    def memory(self) -> dict[str, Any]:
        """`anneal dev status`: rows of all parts, and their totals in MB (10^6 bytes)."""
        found: dict[str, Any] = self.command("dev", "status", "--json")
        return found

    def command(self, *args: str, timeout: float = 600) -> Any:
        """A command of the CLI that answers with JSON. Raises BenchError."""
        done = self.anneal.cli(*args, timeout=timeout)
        if done.code != 0:
            raise BenchError(f"anneal {' '.join(args)} ended with {done.code}: {done.err.strip()[-400:]}")
        return done.json()


@contextmanager
def data_folder() -> Iterator[Path]:
    """A new data folder whose lab is the one that was built for everybody."""
    outer = Path(tempfile.mkdtemp(prefix="anneal-bench-"))
    try:
        # Open to pass through, so that Postgres' own user can get in when we are root.
        outer.chmod(0o711)
        home = outer / "home"
        home.mkdir(mode=0o711)
        (home / "lab").symlink_to(DEFAULT_HOME / "lab")
        yield home
    finally:
        with uninterrupted():
            shutil.rmtree(outer)


@contextmanager
def dev(
    home: Path, *options: str, module: str = "anneal_cli", skills: Path = ROOT / "skills", env: Mapping[str, str] = {}
) -> Iterator[Running]:
    """Runs `anneal dev` with these options until the block ends. Raises BenchError where it does not get ready.

    module: what stands for the command line; env: beside our own environment.
    """
    anneal = Anneal(home=home, base=_free_base())
    arguments = ["dev", "--json", "--port-base", str(anneal.base), "--skills-dir", str(skills), *options]
    complaint = home / "bench-dev.err"
    began = time.monotonic()
    with complaint.open("w") as errors:
        # A session of its own: Ctrl-C reaches us alone, and we end it in order.
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **env, "ANNEAL_HOME": str(home)},
            start_new_session=True,
        )
    try:
        _await_ready(child, complaint)
        yield Running(anneal=anneal, start_s=time.monotonic() - began)
    finally:
        with uninterrupted():
            _stop(child)


def _await_ready(child: "subprocess.Popen[bytes]", complaint: Path) -> None:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line or json.loads(line)["phase"] != "ready":
        words = complaint.read_text(errors="replace").strip()[-600:]
        raise BenchError(f"anneal dev did not get ready: {words}")


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()


def _free_base() -> int:
    """A port base whose ports are free just now; at random, since tests may look for one at the same time."""
    for _ in range(50):
        base = secrets.choice(_BASES)
        if all(_is_free(base + offset) for offset in OFFSETS.values()):
            return base
    raise BenchError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
