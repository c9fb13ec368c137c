"""The lab's door: machines made from the image, booted, copied, put back. See the package's docstring."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from anneal_lab import build, container, images, machine, snapshots, sshkeys
from anneal_lab.layout import HomePaths, MachinePaths, default_home
from anneal_lab.locks import locked
from anneal_lab.model import Access, LabError, MachineStatus, check_generation_name, check_machine_name


class Lab:
    """Synchronous; every method may be called from any thread or process, each machine has its own lock."""

    def __init__(self, home: Path | None = None) -> None:
        self._home = HomePaths(home=(home or default_home()).absolute())

    # Image

    def build(self, *, force: bool = False, progress: Callable[[str], None] = print) -> str:
        """Build the image unless the one there was made from the same recipe; returns its id."""
        return build.build(self._home, force=force, progress=progress)

    def image_id(self) -> str | None:
        """Id of the image that new machines start from; None before the first build."""
        return images.current(self._home)

    # Machines

    def up(self, name: str = "lab") -> Access:
        """Boot a machine, making it from the current image if it is new; returns when a login works."""
        paths = self.machine_paths(name)
        with _locked(paths):
            return machine.up(self._home, paths)

    def down(self, name: str = "lab") -> None:
        """Stop hard; the disk stays."""
        paths = self.machine_paths(name)
        with _locked(paths):
            container.stop(paths)

    def reset(self, name: str = "lab") -> Access:
        """Back to the pristine current image, and boot. Generations of the old state are dropped."""
        paths = self.machine_paths(name)
        images.require_current(self._home)
        with _locked(paths):
            machine.delete(self._home, paths)
            return machine.up(self._home, paths)

    def clone(self, source: str, to: str) -> Access:
        """A new running machine with the disk of `source` as it is now ("" = the pristine image)."""
        target = self.machine_paths(to)
        with _locked(target):
            if target.record.exists():
                raise LabError(f"machine {to!r} exists already; `anneal-lab delete {to}` removes it")
            if source:
                machine.copy(self._home, self.machine_paths(source), target)
            return machine.up(self._home, target)

    def delete(self, name: str) -> None:
        """Stop the machine and remove its disk and generations; no error when there is none."""
        paths = self.machine_paths(name)
        with _locked(paths):
            machine.delete(self._home, paths)

    def status(self, name: str = "lab") -> MachineStatus:
        """What is there now. Takes no lock: it answers also while another process works on the machine."""
        paths = self.machine_paths(name)
        record = machine.load(paths)
        if record is None:
            return MachineStatus(name=name, state="absent", image="", access=None, generations=())
        running = container.init_process(paths) is not None
        return MachineStatus(
            name=name,
            state="running" if running else "stopped",
            image=record.image,
            access=machine.access(self._home, record) if running else None,
            generations=snapshots.names(paths.generations),
        )

    def machines(self) -> list[str]:
        """Names of all machines of this home, running or not."""
        return machine.names(self._home)

    def access(self, name: str) -> Access:
        """How to reach a running machine."""
        reach = self.status(name).access
        if reach is None:
            raise LabError(f"machine {name!r} is not running; `anneal-lab up {name}` starts it")
        return reach

    def run_ssh(self, name: str, command: Sequence[str]) -> int:
        """A shell on the machine, or one command, as a user would; returns its exit status."""
        known = machine.known_hosts(self._home, name)
        tty = not command and sys.stdin.isatty()
        argv = sshkeys.ssh_argv(self.access(name), known, command, tty=tty)
        return os.spawnvp(os.P_WAIT, argv[0], argv)  # noqa: S606 - a shell in between would interpret the command

    # Generations

    def console(self, name: str) -> list[str]:
        """Words to put before a command so that it runs as root inside a machine, whatever became of its sshd."""
        pid = container.init_process(self.machine_paths(name))
        if pid is None:
            raise LabError(f"{name} is not running")
        return ["nsenter", "--target", str(pid), "--all", "--"]

    def snapshot(self, name: str, generation: str, *, recycle: str = "") -> None:
        """Keep the disk as it is now. The machine is held still for the copy, so it is of one moment.

        recycle: a generation to make the new one out of, which is several times faster; it is gone afterwards.
        """
        check_generation_name(generation)
        if recycle:
            check_generation_name(recycle)
        paths = self.machine_paths(name)
        with _locked(paths):
            machine.require(paths)
            with machine.held(paths):
                snapshots.save(paths.upper, paths.generations, generation, recycle=recycle)

    def restore(self, name: str, generation: str, *, boot: bool = True) -> None:
        """Pull the plug, put the disk back byte for byte, and boot again unless told not to."""
        paths = self.machine_paths(name)
        with _locked(paths):
            machine.require(paths)
            saved = snapshots.find(paths.generations, check_generation_name(generation))
            container.stop(paths)
            snapshots.copy_tree(saved, paths.upper)
            if boot:
                machine.up(self._home, paths)

    def changed(self, name: str, generation: str, ignore: Sequence[str] = ()) -> list[str]:
        """Paths that differ between the disk now and a generation, less those that match a glob in `ignore`."""
        paths = self.machine_paths(name)
        with _locked(paths):
            machine.require(paths)
            saved = snapshots.find(paths.generations, check_generation_name(generation))
            return snapshots.differences(paths.upper, saved, ignore)

    def drop(self, name: str, generation: str) -> None:
        """Forget a generation."""
        paths = self.machine_paths(name)
        with _locked(paths):
            snapshots.drop(paths.generations, check_generation_name(generation))

    def tree_hash(self, name: str) -> str:
        """A hash of the machine's whole root as it sees it, image included (a second or two)."""
        paths = self.machine_paths(name)
        with _locked(paths):
            return machine.tree_hash(self._home, paths, machine.require(paths))

    def keep(self, name: str) -> Path:
        """A folder that the machine has as /run/anneal-lab/kept from its next boot on. No generation holds it and no

        restore takes it back; a reset removes it.
        """
        paths = self.machine_paths(name)
        with _locked(paths):
            machine.require(paths)
            paths.kept.mkdir(exist_ok=True)
        return paths.kept

    def machine_paths(self, name: str) -> MachinePaths:
        """Where a machine lives; for tools and tests that look at it from outside."""
        return self._home.machine(check_machine_name(name))


def _locked(paths: MachinePaths) -> AbstractContextManager[None]:
    return locked(paths.lock, what=f"machine {paths.name}")
