"""The database of one service: a pool on a schema of its own, migrations, transactions, idempotent writes."""

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources.abc import Traversable
from typing import TypeAlias

import asyncpg

from anneal_runtime.errors import AlreadyExists, FailedPrecondition, Internal, InvalidArgument, Unavailable

log = logging.getLogger(__name__)

# What transaction() yields and stores work with. asyncpg's classes are generic for type checkers only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_SCHEMA = re.compile(r"^[a-z][a-z0-9_]{0,40}$")
_MAX_KEY = 200
# An answer is remembered this long for callers that ask again.
_KEEP_ANSWERS = timedelta(days=7)
_RETRY_S = 0.1

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.SerializationError,
    OSError,
)

_OWN_TABLES = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS idempotency (
    key text PRIMARY KEY, request_sha256 text NOT NULL, response bytea, created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idempotency_created_at ON idempotency (created_at);
"""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file NNNN_name.sql."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Database:
    """An open database: connection() for reads, transaction() for writes; pool itself raises asyncpg's own errors."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", acquire_timeout_s: float) -> None:
        self.pool = pool
        self._acquire_timeout_s = acquire_timeout_s

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        schema: str,
        migrations: Traversable,
        min_size: int = 1,
        max_size: int = 4,
        timeout_s: float = 10.0,
    ) -> "Database":
        """Connects, creates the schema, applies what is missing of migrations (NNNN_name.sql, each in a transaction).

        Waits up to timeout_s for a server that is starting. Raises Unavailable, FailedPrecondition (an applied
        migration was edited, or the schema is newer than this program), InvalidArgument (bad files, schema or dsn).
        """
        if not _SCHEMA.match(schema):
            raise InvalidArgument(f"{schema!r} is no name for a schema", field="schema")
        known = _read(migrations)
        first = await _first_connection(dsn, schema, timeout_s)
        try:
            await _migrate(first, schema, known)
        finally:
            await first.close()
        pool = await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout_s,
            command_timeout=60,
            server_settings=_server_settings(schema),
            reset=_leave,
        )
        return cls(pool, timeout_s)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reads, outside a transaction.

        Raises Unavailable when the server is gone, the pool stays empty, or a deadlock chose us; all else as it is.
        """
        try:
            async with asyncio.timeout(self._acquire_timeout_s):
                conn = await self.pool.acquire()
        except (TimeoutError, *_GONE) as e:
            raise Unavailable(f"no database connection: {e!r}") from e
        try:
            yield conn
        except _GONE as e:
            raise Unavailable(f"the database gave up: {e!r}") from e
        finally:
            await self.pool.release(conn)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises. Errors as of connection()."""
        async with self.connection() as conn, conn.transaction():
            yield conn

    async def close(self) -> None:
        """Closes the pool; connections that do not come back within 5 s are cut."""
        try:
            async with asyncio.timeout(5):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()


async def once(conn: Connection, key: str, request: bytes, run: Callable[[], Awaitable[bytes]]) -> bytes:
    """Runs a write at most once for a key, in the caller's transaction; returns its answer (later: the stored one).

    Two callers at once: the second waits for the first's commit. Prefix the key with the RPC's name where a caller may
    use one key for several. Raises AlreadyExists(field="idempotency_key") for the same key with another request.
    """
    if not key or len(key) > _MAX_KEY:
        raise InvalidArgument(f"must have 1 to {_MAX_KEY} characters", field="idempotency_key")
    if not conn.is_in_transaction():
        raise Internal("once() was called outside a transaction")
    sha = hashlib.sha256(request).hexdigest()
    mine = await conn.fetchval(
        "INSERT INTO idempotency (key, request_sha256) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true", key, sha
    )
    if mine:
        response = await run()
        await conn.execute("UPDATE idempotency SET response = $2 WHERE key = $1", key, response)
        return response
    earlier = await answered(conn, key, request)
    if earlier is None:
        raise Internal("an idempotency key has no answer: was once() nested with the same key?")
    return earlier


async def answered(conn: Connection, key: str, request: bytes) -> bytes | None:
    """What once() answered to this key before; None: nothing. Raises as once() does for another request."""
    row = await conn.fetchrow("SELECT request_sha256, response FROM idempotency WHERE key = $1", key)
    if row is None or row["response"] is None:
        return None
    if not hmac.compare_digest(row["request_sha256"], hashlib.sha256(request).hexdigest()):
        raise AlreadyExists("this key was used for another request", field="idempotency_key")
    return bytes(row["response"])


async def _leave(_: Connection) -> None:
    """Nothing is reset when a connection goes back: an open transaction was ended before this, and nothing else of ours
    outlives one. asyncpg's own way is a round trip for each use."""


def _server_settings(schema: str) -> dict[str, str]:
    # Names are made in the first; extensions (pgvector) live in one of the others, by who installed them.
    return {"search_path": f"{schema}, extensions, public", "application_name": f"anneal-{schema}", "timezone": "UTC"}


def _read(folder: Traversable) -> Sequence[Migration]:
    """The migrations of a folder in order: 1, 2, 3, ... without gaps. Raises InvalidArgument."""
    found: list[Migration] = []
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql"):
            continue
        match = _NAME.match(file.name)
        if match is None:
            raise InvalidArgument(f"{file.name} is not named NNNN_name.sql", field="migrations")
        found.append(Migration(version=int(match[1]), name=file.name, sql=file.read_text(encoding="utf-8")))
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise InvalidArgument(
            f"versions must run from 0001 without gaps: {[m.name for m in found]}", field="migrations"
        )
    return found


async def _first_connection(dsn: str, schema: str, timeout_s: float) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await asyncpg.connect(dsn, timeout=timeout_s, server_settings=_server_settings(schema))
                except (OSError, asyncpg.exceptions.CannotConnectNowError) as e:
                    log.debug("database not there yet: %r", e)
                    await asyncio.sleep(_RETRY_S)
    except TimeoutError as e:
        raise Unavailable(f"the database did not answer within {timeout_s} s") from e
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as e:
        raise FailedPrecondition(f"the database refuses us: {e}", field="postgres_dsn") from e
    except (ValueError, asyncpg.InterfaceError) as e:
        raise InvalidArgument(f"not a usable address: {type(e).__name__}", field="postgres_dsn") from e


async def _migrate(conn: "asyncpg.Connection[asyncpg.Record]", schema: str, known: Sequence[Migration]) -> None:
    # One process at a time migrates a schema; the lock goes with the session, also when the process dies.
    await conn.execute("SELECT pg_advisory_lock(hashtext('anneal migrations'), hashtext($1))", schema)
    await conn.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    await conn.execute(_OWN_TABLES)
    rows = await conn.fetch("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    _check_applied({row["version"]: row for row in rows}, known, schema)
    for migration in known[len(rows) :]:
        async with conn.transaction():
            await conn.execute(migration.sql)
            await conn.execute(
                "INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.sha256,
            )
        log.info("migrated", extra={"schema": schema, "migration": migration.name})
    await conn.execute("DELETE FROM idempotency WHERE created_at < now() - $1::interval", _KEEP_ANSWERS)


def _check_applied(applied: dict[int, asyncpg.Record], known: Sequence[Migration], schema: str) -> None:
    for version, row in applied.items():
        if version > len(known):
            raise FailedPrecondition(f"schema {schema} is newer than this program: it has {row['name']}")
        if known[version - 1].sha256 != row["sha256"]:
            raise FailedPrecondition(f"{row['name']} of schema {schema} was edited after it was applied")
