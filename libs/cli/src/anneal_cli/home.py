"""Where embedded mode keeps its things, and the shared secret."""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from anneal_cli.exits import CliError, ExitCode

# What the services ask for.
_MIN_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class Home:
    """Paths below the data folder ($ANNEAL_HOME; default ~/.local/share/anneal)."""

    root: Path

    @classmethod
    def of(cls, explicit: str | None = None) -> "Home":
        """The data folder: as given, else $ANNEAL_HOME, else below $XDG_DATA_HOME or ~/.local/share."""
        given = explicit or os.environ.get("ANNEAL_HOME")
        if given:
            return cls(root=Path(given).expanduser().absolute())
        share = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return cls(root=Path(share) / "anneal")

    @property
    def token_file(self) -> Path:
        return self.root / "token"

    @property
    def lock_file(self) -> Path:
        return self.root / "dev.lock"

    @property
    def state_file(self) -> Path:
        """What a running `anneal dev` says of itself: see anneal_cli.dev.state."""
        return self.root / "dev.json"

    @property
    def log_file(self) -> Path:
        return self.root / "log" / "anneal.log"

    def make(self) -> None:
        """Makes the data folder and its log folder where they are missing, and closes wider ones to others.

        A folder that is somebody else's, is shared (sticky) or lies at the root of the file system stays as it is.
        """
        # A database that was made inside by a system user's Postgres needs the way in, but no more than that.
        inside = self.root / "postgres" / "data"
        passing = inside.is_dir() and inside.stat().st_uid != os.geteuid()
        for folder, mode in ((self.root, 0o711 if passing else 0o700), (self.log_file.parent, 0o700)):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            found = folder.stat()
            ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX and folder.parent != Path("/")
            if ours and found.st_mode & 0o077 & ~mode:
                folder.chmod(mode)

    def token(self) -> str:
        """The shared secret: $ANNEAL_TOKEN, else the token file; empty where there is none.

        Raises CliError (cannot reach) where the file exists and may not be read.
        """
        given = os.environ.get("ANNEAL_TOKEN")
        if given:
            return given.strip()
        try:
            return self.token_file.read_text().strip()
        except FileNotFoundError:
            return ""
        except OSError as e:
            raise CliError(
                message=f"cannot read the token {self.token_file}: {e.strerror}",
                code=ExitCode.UNREACHABLE,
                hint="run as the user who started anneal, or set ANNEAL_TOKEN",
            ) from e

    def ensure_token(self) -> str:
        """Makes the token file (mode 0600) where it is missing, mends a wider mode, returns the secret."""
        self.make()
        given = os.environ.get("ANNEAL_TOKEN", "").strip()
        if 0 < len(given) < _MIN_TOKEN:
            raise CliError(
                message=f"a token has {_MIN_TOKEN} characters or more",
                code=ExitCode.USAGE,
                field="ANNEAL_TOKEN",
                hint="unset it: anneal dev makes a good one",
            )
        try:
            fd = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if self.token_file.stat().st_mode & 0o077:
                self.token_file.chmod(0o600)
            stored = self.token_file.read_text().strip()
            if stored and (not given or given == stored):
                return stored
            fd = os.open(self.token_file, os.O_WRONLY | os.O_TRUNC)
        secret = given or secrets.token_urlsafe(32)
        with os.fdopen(fd, "w") as file:
            file.write(secret + "\n")
        return secret
