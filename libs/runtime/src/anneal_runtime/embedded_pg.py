"""The embedded Postgres: PG 18 with pgvector, small for an edge box, fsync on, on loopback with a password."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from anneal_runtime import children, private
from anneal_runtime.embedded_leftover import STOP, end_leftover, pid_file
from anneal_runtime.embedded_place import Place, find_place, remove
from anneal_runtime.errors import FailedPrecondition, InvalidArgument, Unavailable

ROLE = "anneal"
DATABASE = "anneal"
_START_S = 60.0
_MAX_LOG = 4 << 20
_MARK_FILE = "anneal-token.sha256"

_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"

_EXTENSIONS = (
    "CREATE SCHEMA extensions",
    "GRANT USAGE ON SCHEMA extensions TO PUBLIC",
    "CREATE EXTENSION vector SCHEMA extensions",
)

# Six small pools on one machine. Every process that is not needed is off: resident memory counts.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "jit": "off",
    "io_method": "sync",
    "huge_pages": "off",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "1",
    "autovacuum_worker_slots": "1",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "logging_collector": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class EmbeddedPostgres:
    """One cluster in one folder. Role `anneal` owns database `anneal`, is no superuser; token is its password.

    settings override server settings. durable=False (tests alone): no fsync, also not while the cluster is made.
    """

    def __init__(
        self, dir: Path, port: int, token: str, *, settings: Mapping[str, str] | None = None, durable: bool = True
    ) -> None:
        if not token or any(ord(c) < 32 for c in token):
            raise InvalidArgument("must not be empty nor hold control characters", field="token")
        self.dir = dir
        self.port = port
        self._token = token
        self._settings = {**_SETTINGS, **({} if durable else {"fsync": "off"}), **(settings or {})}
        self._durable = durable
        self._lock: children.FolderLock | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._place: Place | None = None

    @property
    def dsn(self) -> str:
        """Address of the database, password included."""
        return f"postgresql://{ROLE}:{quote(self._token, safe='')}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """Of the running postmaster; 0: not running."""
        return self._child.pid if self._child is not None and self._child.poll() is None else 0

    @property
    def data(self) -> Path:
        """Where the cluster is (as root not always below dir: see embedded_place). Raises when never started."""
        if self._place is None:
            raise FailedPrecondition("Postgres was not started")
        return self._place.data

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self.dir / "postgres.log"

    async def start(self) -> None:
        """Starts the server and returns when it takes connections; makes the cluster first if there is none.

        Raises FailedPrecondition (folder in use, port taken, no system user), Unavailable (it did not come up).
        """
        try:
            await children.adrive(self._starting())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Fast shutdown. May be repeated."""
        await children.adrive(self._stopping())

    def start_sync(self) -> None:
        """start() for callers without an event loop."""
        try:
            children.drive(self._starting())
        except BaseException:
            self.stop_sync()
            raise

    def stop_sync(self) -> None:
        """stop() for callers without an event loop."""
        children.drive(self._stopping())

    def remove(self) -> None:
        """Removes the folder and all data, wherever it is. Call when stopped."""
        remove(self.dir)

    def _starting(self) -> Iterator[None]:
        self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place = place = find_place(self.dir)
        # On the data's own folder: two copies of a home may point to one cluster.
        lock = children.FolderLock(place.data.parent)
        lock.take()
        self._lock = lock
        yield from end_leftover(place.data)
        children.require_free_port(self.port, "Postgres")
        if not (place.data / _MARK_FILE).exists():
            yield from self._make(place)
        elif (place.data / _MARK_FILE).read_text() != self._mark():
            # The token file was renewed; nobody could log in to say so.
            yield from self._single(place, [f"ALTER ROLE {ROLE} PASSWORD {_literal(self._token)}"], DATABASE)
            self._remember_token(place.data)
        self._spawn(place)
        try:
            yield from children.wait_for(self._is_ready, _START_S)
        except TimeoutError:
            raise Unavailable(f"Postgres did not come up within {_START_S:.0f} s:\n{self._last_words()}") from None

    def _stopping(self) -> Iterator[None]:
        if self._child is not None:
            yield from children.stop_child(self._child, STOP)
            self._child = None
        if self._lock is not None:
            self._lock.release()

    def _mark(self) -> str:
        return hashlib.sha256(f"anneal:{self._token}".encode()).hexdigest()

    def _remember_token(self, data: Path) -> None:
        # Last of all when a cluster is made: a folder without it is unfinished and is made again.
        (data / _MARK_FILE).write_text(self._mark())

    def _make(self, place: Place) -> Iterator[None]:
        """A new cluster. The superuser has no password and so cannot log in."""
        if place.data.exists():
            shutil.rmtree(place.data)
        place.data.mkdir(mode=0o700, parents=True)
        os.chown(place.data, *place.owner())
        argv = ["-D", str(place.data), "-U", "postgres", "--encoding=UTF8"]
        argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"]
        argv += [] if self._durable else ["--no-sync"]
        yield from self._tool(place, "initdb", argv, b"")
        (place.data / "pg_hba.conf").write_text(_HBA)
        login = f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD {_literal(self._token)}"
        # In template1, so that every database has them; only a superuser may add the extension.
        statements = [*_EXTENSIONS, login, f"CREATE DATABASE {DATABASE} OWNER {ROLE}"]
        yield from self._single(place, statements, "template1")
        self._remember_token(place.data)

    def _single(self, place: Place, statements: list[str], database: str) -> Iterator[None]:
        """Runs SQL in single-user mode: no server, no password; by standard input, where no argument shows it."""
        argv = [
            "--single",
            "-D",
            str(place.data),
            "-c",
            "exit_on_error=true",
            *([] if self._durable else ["-F"]),
            database,
        ]
        yield from self._tool(place, "postgres", argv, "".join(f"{s};\n" for s in statements).encode())

    def _tool(self, place: Place, name: str, argv: list[str], stdin: bytes) -> Iterator[None]:
        """Runs a program of Postgres to its end. Raises Unavailable with its last words."""
        command = children.die_with_parent([str(place.bin / name), *argv], "KILL", user=place.user)
        with (
            self._log() as log,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", env=_env(), start_new_session=True
            ) as child,
        ):
            assert child.stdin is not None
            child.stdin.write(stdin)
            child.stdin.close()
            try:
                yield from children.wait_for(lambda: child.poll() is not None, _START_S)
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            raise Unavailable(f"{name} failed with {child.returncode}:\n{self._last_words()}")

    def _spawn(self, place: Place) -> None:
        options = [part for key, value in self._settings.items() for part in ("-c", f"{key}={value}")]
        argv = [str(place.bin / "postgres"), "-D", str(place.data), "-p", str(self.port), *options]
        with self._log() as log:
            self._child = subprocess.Popen(
                children.die_with_parent(argv, "INT", user=place.user),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_env(),
                # Ctrl-C at the terminal is for us alone: we stop the services first.
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        """Raises Unavailable when the server ended."""
        assert self._child is not None
        if self._child.poll() is not None:
            raise Unavailable(f"Postgres ended with {self._child.returncode}:\n{self._last_words()}")
        lines = pid_file(self.data)
        return len(lines) > 7 and lines[0] == str(self._child.pid) and lines[7].strip() == "ready"

    def _log(self) -> IO[bytes]:
        if self.log_path.exists() and self.log_path.stat().st_size > _MAX_LOG:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return private.append(self.log_path)

    def _last_words(self) -> str:
        return self.log_path.read_text(errors="replace")[-800:].strip()


def _env() -> dict[str, str]:
    # PG* variables of the caller's are for other servers.
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"
