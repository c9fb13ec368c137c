"""RPMs made for the lab: base packages named in the database, and a signed local repository.

Two kinds, both with payloads that are real:
* base packages (`rpms/base.toml`): what debootstrap installed, recorded in the rpm database under its EL name
  with the very files that are on the disk, so `rpm -V`, `dnf remove` and package rules see the truth;
* repository packages (`rpms/repo.toml`): Debian's build of the software, with EL9's units and paths where those
  differ. Some are installed in the image, as on a host that nobody has cleaned up.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anneal_lab import debs, recipe, rpmspec
from anneal_lab.chroot import inside
from anneal_lab.proc import run

REPO = "opt/anneal-lab/repo"
_KEY = "RPM-GPG-KEY-anneal-lab"
_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One entry of `repo.toml`; paths are as they will be installed."""

    name: str
    summary: str
    debs: tuple[str, ...] = ()
    version: str = ""
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    moves: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    pre: str = ""
    post: str = ""
    installed: bool = False


def repository_entries() -> list[Wanted]:
    return [_wanted(name, entry) for name, entry in _toml("repo.toml").items()]


def _wanted(name: str, entry: Mapping[str, Any]) -> Wanted:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Wanted(name=name, **fields)


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((recipe.folder("rpms") / name).read_text())


def furnish(root: Path, work: Path, say: Callable[[str], None]) -> None:
    """Fill the rpm database and the repository, then install what the image is to have installed."""
    entries = repository_entries()
    needed = sorted({package for entry in entries for package in entry.debs})
    say(f"downloading {len(needed)} Debian packages that become payloads")
    debs.fetch(root, needed, work / "debs")
    inside(root, ["rpm", "--initdb"])
    base = _toml("base.toml")
    say(f"naming {len(base)} base packages in the rpm database")
    _each(lambda item: _base(root, work, item[0], item[1]), list(base.items()))
    _record(root, work / "base")
    say(f"building {len(entries)} packages for the local repository")
    _each(lambda entry: _repository_package(work, entry), entries)
    say("signing and indexing the repository")
    _publish(root, work)
    chosen = [entry.name for entry in entries if entry.installed]
    say(f"installing {len(chosen)} of them by dnf")
    inside(root, ["dnf", "-q", "-y", "install", *chosen], timeout=180)
    inside(root, ["dnf", "clean", "all"])


def _each(task: Callable[[Any], None], items: list[Any]) -> None:
    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(task, items):
            pass


def _base(root: Path, work: Path, name: str, entry: Mapping[str, Any]) -> None:
    """An RPM of files that are on the disk already; it is only recorded, never unpacked."""
    files: list[str] = list(entry.get("files", []))
    for package in entry.get("debs", []):
        listing = (root / "var/lib/dpkg/info").glob(f"{package}*.list")
        files += [line for path in listing if _owner(path) == package for line in path.read_text().splitlines()]
    tree = work / "base-trees" / name
    for path in sorted({rpmspec.merged(file) for file in files}):
        rpmspec.copy_real(root, path, tree)
    version = entry.get("version") or _installed_version(root, entry["debs"][0])
    spec = rpmspec.Spec(
        name=name,
        version=version,
        summary=entry["summary"],
        provides=tuple(entry.get("provides", ())),
        requires=tuple(entry.get("requires", ())),
        folders=False,
        users=_ids(root / "etc/passwd"),
        groups=_ids(root / "etc/group"),
    )
    rpmspec.build(spec, tree, work / "base")


def _ids(database: Path) -> dict[int, str]:
    """Number to name, of passwd or group."""
    rows = [line.split(":") for line in database.read_text().splitlines()]
    return {int(row[2]): row[0] for row in rows if len(row) > 2}


def _owner(listing: Path) -> str:
    return listing.name.removesuffix(".list").split(":", 1)[0]


def _installed_version(root: Path, package: str) -> str:
    words = run(["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Version}", package])
    return debs.upstream(words.strip())


def _record(root: Path, folder: Path) -> None:
    """--justdb: the files are there; only the database learns of them."""
    place = root / "var/cache/anneal-rpms"
    shutil.copytree(folder, place)
    inside(root, ["sh", "-ec", "rpm -i --justdb --nodeps --noscripts --nosignature /var/cache/anneal-rpms/*.rpm"])
    shutil.rmtree(place)


def _repository_package(work: Path, entry: Wanted) -> None:
    tree = work / "trees" / entry.name
    tree.mkdir(parents=True)
    for package in entry.debs:
        debs.extract(debs.find(work / "debs", package), tree)
    rpmspec.tidy(tree, drop=entry.drop, moves=entry.moves)
    own = recipe.folder("rpms") / "files" / entry.name
    if own.is_dir():
        shutil.copytree(own, tree, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns(".gitkeep"))
    spec = rpmspec.Spec(
        name=entry.name,
        version=entry.version or debs.version(debs.find(work / "debs", entry.debs[0])),
        summary=entry.summary,
        requires=entry.requires,
        provides=entry.provides,
        units=entry.units,
        attributes=entry.attributes,
        pre=entry.pre,
        post=entry.post,
    )
    rpmspec.build(spec, tree, work / "repo")


def _publish(root: Path, work: Path) -> None:
    """Sign, index, and tell the root which key to trust."""
    # Not under `work`: the key agent's socket must have a short path.
    with tempfile.TemporaryDirectory(prefix="anneal-gpg-") as ring:
        public = _sign(sorted((work / "repo").glob("*.rpm")), ring)
    keys = root / "etc/pki/rpm-gpg"
    keys.mkdir(parents=True, exist_ok=True)
    (keys / _KEY).write_text(public)
    shutil.copytree(work / "repo", root / REPO, dirs_exist_ok=True)
    run(["createrepo_c", "-q", root / REPO])
    inside(root, ["rpm", "--import", f"/etc/pki/rpm-gpg/{_KEY}"])


def _sign(packages: list[Path], ring: str) -> str:
    """Sign with a key made for this image and thrown away: nobody can add a package that the image would trust."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    env = {"PATH": path, "GNUPGHOME": ring, "HOME": ring, "LC_ALL": "C.UTF-8"}
    ask = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    defines = ["--define", f"__gpg {shutil.which('gpg')}", "--define", "_gpg_name anneal lab"]
    try:
        run([*ask, "--quick-generate-key", "anneal lab", "rsa3072", "sign", "never"], env=env)
        run(["rpmsign", *defines, "--addsign", *packages], env=env, timeout=180)
        return run(["gpg", "--armor", "--export", "anneal lab"], env=env)
    finally:
        run(["gpgconf", "--kill", "all"], env=env)
