"""The store on Postgres, schema `memory`. SQL only; the rules are in rules.py and domain.py."""

# ruff: noqa: S608  # nothing but this module's own lists of columns is put into a statement

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from importlib.resources import files
from typing import Any

from anneal_runtime.postgres import Connection, Database, once

from anneal_memory.lessons_postgres import PostgresLessons
from anneal_memory.model import Change, Conflict, Kind, Memory, Scope
from anneal_memory.store import Tx

SCHEMA = "memory"

_NAMES = tuple(f.name for f in fields(Memory))
_COLUMNS = ", ".join(_NAMES)
_WITHOUT_BANS_CONTENT = _COLUMNS.replace("content", "CASE WHEN kind = 'ban' THEN '' ELSE content END AS content")
_VALUES = ", ".join(f"${n}" for n in range(1, len(_NAMES) + 1))
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "id")


async def open_database(dsn: str) -> Database:
    """Opens the service's schema and brings it up to date."""
    return await Database.open(dsn, schema=SCHEMA, migrations=files(__package__) / "migrations")


class PostgresStore:
    """Transactions over a pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        async with self._database.transaction() as conn:
            yield PostgresTx(conn)


class PostgresTx(PostgresLessons):
    """One transaction on one connection."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def once(self, key: str, request: bytes, run: Callable[[], Awaitable[bytes]]) -> bytes:
        return await once(self._conn, key, request, run)

    async def now(self) -> datetime:
        at: datetime = await self._conn.fetchval("SELECT clock_timestamp()")
        return at

    async def lock_scope(self, scope: Scope) -> None:
        await self._conn.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{scope.skill}\n{scope.fingerprint}"
        )

    async def memories(self, scope: Scope, item_ids: Sequence[str]) -> Sequence[Memory]:
        rows = await self._conn.fetch(
            f"SELECT {_COLUMNS} FROM memories WHERE skill = $1 AND fingerprint = $2 AND item_id = ANY($3)",
            scope.skill,
            scope.fingerprint,
            list(item_ids),
        )
        return [_memory(r) for r in rows]

    async def recallable(self, scope: Scope, item_ids: Sequence[str]) -> Sequence[Memory]:
        rows = await self._conn.fetch(
            f"SELECT {_WITHOUT_BANS_CONTENT} FROM memories"
            " WHERE skill = $1 AND fingerprint = $2 AND item_id = ANY($3) AND NOT forgotten",
            scope.skill,
            scope.fingerprint,
            list(item_ids),
        )
        return [_memory(r) for r in rows]

    async def newest(self, skill: str, limit: int) -> Sequence[Memory]:
        rows = await self._conn.fetch(
            f"SELECT {_COLUMNS} FROM memories WHERE ($1 = '' OR skill = $1) AND NOT forgotten"
            " ORDER BY seen_at DESC, id LIMIT $2",
            skill,
            limit,
        )
        return [_memory(r) for r in rows]

    async def memory(self, id_: str) -> Memory | None:
        row = await self._conn.fetchrow(f"SELECT {_COLUMNS} FROM memories WHERE id = $1", id_)
        return None if row is None else _memory(row)

    async def save(self, memory: Memory) -> None:
        await self._conn.execute(
            f"INSERT INTO memories ({_COLUMNS}) VALUES ({_VALUES}) ON CONFLICT (id) DO UPDATE SET {_UPDATES}",
            *(getattr(memory, name) for name in _NAMES),
        )

    async def conflicts(self, scope: Scope, item_ids: Sequence[str], since: datetime) -> Sequence[Conflict]:
        rows = await self._conn.fetch(
            "SELECT item_id, array_agg(undone_by ORDER BY undone_by) AS others FROM conflicts"
            " WHERE skill = $1 AND fingerprint = $2 AND item_id = ANY($3) AND seen_at >= $4"
            " GROUP BY item_id ORDER BY item_id",
            scope.skill,
            scope.fingerprint,
            list(item_ids),
            since,
        )
        return [Conflict(item_id=r["item_id"], undone_by=tuple(r["others"])) for r in rows]

    async def save_conflicts(self, scope: Scope, run_id: str, conflicts: Sequence[Conflict]) -> None:
        await self._conn.executemany(
            "INSERT INTO conflicts (skill, fingerprint, item_id, undone_by, run_id) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (skill, fingerprint, item_id, undone_by)"
            " DO UPDATE SET run_id = excluded.run_id, seen_at = clock_timestamp()",
            [(scope.skill, scope.fingerprint, c.item_id, other, run_id) for c in conflicts for other in c.undone_by],
        )

    async def note(self, memory: Memory, change: Change, run_id: str) -> None:
        await self._conn.execute(
            "INSERT INTO audit (memory_id, run_id, change, kind, uses, successes) VALUES ($1, $2, $3, $4, $5, $6)",
            memory.id,
            run_id,
            change,
            memory.kind,
            memory.uses,
            memory.successes,
        )


def _memory(row: Any) -> Memory:
    return Memory(**{**dict(row), "kind": Kind(row["kind"])})
