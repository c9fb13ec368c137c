"""One machine's life: its record, making, booting, copying, removing. The caller holds the machine's lock."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from anneal_lab import container, images, network, snapshots, sshkeys
from anneal_lab.layout import HomePaths, MachinePaths
from anneal_lab.locks import locked
from anneal_lab.model import Access, LabError
from anneal_lab.proc import run

USER = "anneal"
_BOOT_S = 30.0
_TREEHASH = Path(__file__).with_name("treehash.py")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a machine is, apart from its disk."""

    image: str
    network: str


def load(paths: MachinePaths) -> Record | None:
    try:
        return Record(**json.loads(paths.record.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LabError(f"{paths.record} is damaged ({error}); `anneal-lab delete {paths.name}`") from error


def require(paths: MachinePaths) -> Record:
    """The record, or an error that names the next step."""
    record = load(paths)
    if record is None:
        raise LabError(f"there is no machine {paths.name!r}; `anneal-lab up {paths.name}` makes it")
    return record


def _store(paths: MachinePaths, record: Record) -> None:
    paths.folder.mkdir(parents=True, exist_ok=True)
    part = paths.record.with_suffix(".part")
    part.write_text(json.dumps(asdict(record)))
    os.replace(part, paths.record)


def _addressed(home: HomePaths, paths: MachinePaths, image: str, known: str | None) -> Record:
    """Give the machine its network; a recorded one is kept while it is free. One allocation at a time."""
    with locked(home.home / "locks" / "network"):
        if known is None or not network.is_free(known):
            others = [home.machine(name) for name in names(home) if name != paths.name]
            taken = [record.network for other in others if (record := load(other)) is not None]
            known = network.allocate(home.home, paths.name, taken)
        record = Record(image=image, network=known)
        _store(paths, record)
    return record


def names(home: HomePaths) -> list[str]:
    """All machines of this home, running or not."""
    if not home.machines.is_dir():
        return []
    return sorted(entry.name for entry in home.machines.iterdir() if (entry / "machine.json").exists())


def access(home: HomePaths, record: Record) -> Access:
    return Access(
        host=network.machine_address(record.network),
        port=22,
        user=USER,
        key_path=home.key,
        host_key=images.load(home, record.image).host_key,
    )


def known_hosts(home: HomePaths, name: str) -> Path:
    return home.home / "ssh" / f"known_hosts-{name}"


def up(home: HomePaths, paths: MachinePaths) -> Access:
    """Boot, or wait for one that is booting; what a killed predecessor left half-alive is removed first."""
    record = load(paths)
    if record is not None and container.init_process(paths) is not None:
        container.thaw(paths)
        return _wait(home, paths, record)
    container.stop(paths)
    if record is None:
        _clear(paths)
    image = record.image if record is not None else images.require_current(home)
    record = _addressed(home, paths, image, record.network if record is not None else None)
    container.start(paths, net=record.network, lower=images.load(home, record.image).root)
    return _wait(home, paths, record)


def _wait(home: HomePaths, paths: MachinePaths, record: Record) -> Access:
    """`alive` counts any process: for a moment after the start there is no nspawn yet, only the boot script."""
    reach = access(home, record)
    try:
        sshkeys.wait_for_login(
            reach,
            known_hosts(home, paths.name),
            seconds=_BOOT_S,
            alive=lambda: bool(container.processes(paths)),
        )
    except LabError as error:
        raise LabError(
            f"machine {paths.name} did not come up: {error}; its log: {container.tail(paths.log)}"
        ) from error
    return reach


def copy(home: HomePaths, source: MachinePaths, target: MachinePaths) -> None:
    """Give `target` the disk of `source` as it is now; the source may run and is held still meanwhile."""
    with locked(source.lock, what=f"machine {source.name}"):
        record = require(source)
        _clear(target)
        with held(source):
            snapshots.copy_tree(source.upper, target.upper)
    _addressed(home, target, record.image, None)


def delete(home: HomePaths, paths: MachinePaths) -> None:
    """The record goes first: a machine without one counts as absent, whatever else is left of it."""
    container.stop(paths)
    paths.record.unlink(missing_ok=True)
    _clear(paths)
    with contextlib.suppress(FileNotFoundError):
        known_hosts(home, paths.name).unlink()


def _clear(paths: MachinePaths) -> None:
    """Remove what is left of a machine that has no record."""
    if paths.folder.exists():
        shutil.rmtree(paths.folder)


@contextlib.contextmanager
def held(paths: MachinePaths) -> Iterator[None]:
    """The machine stands still inside this block, if it runs."""
    container.freeze(paths)
    try:
        yield
    finally:
        container.thaw(paths)


def tree_hash(home: HomePaths, paths: MachinePaths, record: Record) -> str:
    """Hash the merged root: through the keeper's eyes while it runs, through a private mount when it does not."""
    keeper = container.keeper(paths)
    if keeper is not None:
        with held(paths):
            return _hash(f"/proc/{keeper}/root{paths.merged}")
    for folder in (paths.upper, paths.merged):
        folder.mkdir(exist_ok=True)
    container.empty_work(paths)
    lower = os.path.relpath(images.load(home, record.image).root, paths.folder)
    script = (
        'cd "$1" && mount -t overlay anneal-lab -o "lowerdir=$2,upperdir=upper,workdir=work" merged'
        ' && exec "$3" -I "$4" "$1/merged"'
    )
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    return run([*argv, paths.folder, lower, sys.executable, _TREEHASH], timeout=300).strip()


def _hash(root: str) -> str:
    return run([sys.executable, "-I", _TREEHASH, root], timeout=300).strip()
