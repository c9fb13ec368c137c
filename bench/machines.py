"""Machines of the lab for one benchmark each: pristine at the start, gone at the end, also after Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from anneal_contracts.facts import TargetAccess
from anneal_lab import Lab
from anneal_lab.sshkeys import ssh_argv

from bench.figures import BenchError
from tests.support.stack import DEFAULT_HOME

# b, our pid in hex, a letter: whose machine it is can be told after its owner was killed.
_NAME = re.compile(r"b([0-9a-f]{6})[a-z]")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running machine."""

    lab: Lab
    name: str

    def access(self) -> TargetAccess:
        """How to reach it, as the services are told."""
        reach = self.lab.access(self.name)
        return TargetAccess(
            name=self.name,
            driver="nspawn",
            host=reach.host,
            port=reach.port,
            user=reach.user,
            key_path=str(reach.key_path),
            host_key=reach.host_key,
            can_snapshot=True,
        )

    def sh(self, script: str) -> None:
        """Runs a script as root from outside, so that it works on a machine nobody can log in to. Raises BenchError."""
        command = [*self.lab.console(self.name), "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BenchError(f"{self.name}: a script ended with {done.returncode}: {done.stderr.strip()[-300:]}")

    def greets(self) -> bool:
        """Does its sshd answer?"""
        reach = self.lab.access(self.name)
        try:
            with socket.create_connection((reach.host, reach.port), timeout=1) as link:
                return link.recv(4) == b"SSH-"
        except OSError:
            return False

    def login(self) -> None:
        """A new login that runs a command with sudo. Raises BenchError."""
        with tempfile.TemporaryDirectory() as folder:
            argv = ssh_argv(self.lab.access(self.name), Path(folder) / "known_hosts", ["sudo", "-n", "true"])
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise BenchError(f"{self.name}: no login: {done.stderr.strip()[-300:]}")


@contextmanager
def machine(letter: str = "a") -> Iterator[Machine]:
    """A pristine machine of our own. Raises BenchError where the lab is not built."""
    if os.geteuid() != 0:
        raise BenchError("the lab boots machines and needs root: run it as root")
    lab = Lab(DEFAULT_HOME / "lab")
    if not lab.image_id():
        raise BenchError("the lab has no image; run: make lab-build")
    _sweep(lab)
    name = name_of(os.getpid(), letter)
    try:
        lab.clone("", name)
        yield Machine(lab=lab, name=name)
    finally:
        with uninterrupted():
            lab.delete(name)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Cleaning up goes on to its end: a second Ctrl-C is ignored, here and in what is started from here."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def name_of(pid: int, letter: str) -> str:
    """The name of a machine that the process owns."""
    return f"b{pid:06x}{letter}"


def abandoned(name: str) -> bool:
    """Is it the machine of a benchmark that is no more?"""
    found = _NAME.fullmatch(name)
    return found is not None and not psutil.pid_exists(int(found[1], 16))


def _sweep(lab: Lab) -> None:
    """Removes what a benchmark that was killed has left."""
    for name in lab.machines():
        if abandoned(name):
            lab.delete(name)
