"""Parked messages in Postgres: the truth about them, whatever becomes of the message server's store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from anneal_runtime.errors import FailedPrecondition, NotFound
from anneal_runtime.postgres import Connection, Database, once

from anneal_supervisor.store import Outgoing
from anneal_supervisor.store_postgres import INSERT_OUTGOING, message_columns

# Without the content, which may be large: lists do not show it.
_COLUMNS = """
id, work_class, subject, msg_id, run_id, command_id, reason, detail, deliveries, doer, parked_at, state, settled_at,
length(data) AS size
"""
# The second time it is the same message: nothing of the first is overwritten.
_PARK = """
INSERT INTO parked (id, work_class, subject, msg_id, run_id, command_id, reason, detail, deliveries, doer, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING
"""
_SETTLE = "UPDATE parked SET state = $2, settled_at = now() WHERE id = $1 AND state = 'parked' RETURNING true"
_FORGET = "DELETE FROM parked WHERE state <> 'parked' AND settled_at < now() - interval '7 days'"


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """What a doer says of a message that it gives up."""

    subject: str
    msg_id: str
    reason: str
    detail: str
    deliveries: int
    doer: str


@dataclass(frozen=True, kw_only=True)
class Parked(GivenUp):
    """A message as it is kept. state: parked, retried or dropped; settled ones are kept for seven days."""

    id: str
    work_class: str
    run_id: str
    command_id: str
    size: int = 0
    parked_at: datetime | None = None
    state: str = "parked"
    settled_at: datetime | None = None


class ParkedStore:
    """Every write is one transaction; whatever raises has changed nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def park(self, message: Parked, data: bytes) -> Parked:
        """Keeps a message; returns it as it is kept, which for one that was parked before may be another state."""
        m = message
        async with self._db.transaction() as conn:
            await conn.execute(
                _PARK,
                *(m.id, m.work_class, m.subject, m.msg_id, m.run_id, m.command_id),
                *(m.reason, m.detail, m.deliveries, m.doer, data),
            )
            return await _one(conn, m.id)

    async def newest(self, limit: int) -> Sequence[Parked]:
        """What is parked now, newest first."""
        query = f"SELECT {_COLUMNS} FROM parked WHERE state = 'parked' ORDER BY parked_at DESC, id LIMIT $1"  # noqa: S608
        async with self._db.transaction() as conn:
            return [_parked(row) for row in await conn.fetch(query, limit)]

    async def counts(self) -> Mapping[str, int]:
        """How many are parked, by class of work."""
        query = "SELECT work_class, count(*) AS n FROM parked WHERE state = 'parked' GROUP BY work_class"
        async with self._db.transaction() as conn:
            return {row["work_class"]: row["n"] for row in await conn.fetch(query)}

    async def get(self, parked_id: str) -> tuple[Parked, bytes]:
        """A message and its content. Raises NotFound."""
        async with self._db.transaction() as conn:
            found = await _one(conn, parked_id)
            return found, await conn.fetchval("SELECT data FROM parked WHERE id = $1", parked_id)

    async def settle(self, key: str, parked_id: str, state: str, again: Sequence[Outgoing] = ()) -> Parked:
        """Takes a message off the list, and sends what is to be sent again with the same commit.

        Raises NotFound, and FailedPrecondition where it is off the list already.
        """
        async with self._db.transaction() as conn:

            async def settle() -> bytes:
                if not await conn.fetchval(_SETTLE, parked_id, state):
                    found = await _one(conn, parked_id)
                    raise FailedPrecondition(f"{parked_id} is {found.state} already", field="id")
                await conn.execute(INSERT_OUTGOING, *message_columns(again))
                await conn.execute(_FORGET)
                return b""

            await once(conn, f"Parked/{key}", f"{state}/{parked_id}".encode(), settle)
            return await _one(conn, parked_id)


async def _one(conn: Connection, parked_id: str) -> Parked:
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM parked WHERE id = $1", parked_id)  # noqa: S608
    if row is None:
        raise NotFound(f"no parked message {parked_id}", field="id", details={"hint": "anneal queue list lists them"})
    return _parked(row)


def _parked(row: asyncpg.Record) -> Parked:
    return Parked(**dict(row))
