"""The supervisor's store in Postgres. The schema is in migrations/."""

import json
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files

import asyncpg
from anneal_contracts.canonical import canonical_json
from anneal_core.chain import Event
from anneal_runtime.errors import NotFound, StaleToken
from anneal_runtime.postgres import Database, answered, once

from anneal_supervisor.blob_cache import BlobCache
from anneal_supervisor.errors import damaged
from anneal_supervisor.store import Claimed, Head, Left, Outgoing, Replica

SCHEMA = "supervisor"

INSERT_OUTGOING = """
INSERT INTO outbox (subject, msg_id, data)
SELECT o.subject, o.msg_id, o.data FROM unnest($1::text[], $2::text[], $3::bytea[]) AS o (subject, msg_id, data)
RETURNING id, msg_id
"""
# One statement is one transaction and one round trip. No head moved (the token is another's): nothing is written.
_APPEND = """
WITH moved AS (
    UPDATE runs SET head_seq = $2, head_hash = $3, ended = $4, summary = coalesce($5, summary)
    WHERE run_id = $1 AND owner_token = $6 RETURNING run_id
), appended AS (
    INSERT INTO run_events (run_id, seq, at, type, actor, payload, prev_hash, hash)
    SELECT moved.run_id, e.* FROM moved, unnest(
        $7::bigint[], $8::float8[], $9::text[], $10::text[], $11::bytea[], $12::text[], $13::text[]) AS e
), left_behind AS (
    INSERT INTO outbox (subject, msg_id, data)
    SELECT o.subject, o.msg_id, o.data
    FROM moved, unnest($14::text[], $15::text[], $16::bytea[]) AS o (subject, msg_id, data)
    RETURNING id, msg_id
)
SELECT (SELECT count(*) FROM moved) AS moved, (SELECT array_agg(id) FROM left_behind) AS ids,
    (SELECT array_agg(msg_id) FROM left_behind) AS msg_ids
"""
_CLAIM = """
UPDATE runs SET owner = $1, owner_until = now() + make_interval(secs => $2), owner_token = owner_token + 1,
    owner_address = $5
WHERE run_id IN (
    SELECT run_id FROM runs
    WHERE NOT ended AND run_id <> ALL($4::text[])
        AND (owner_until < now() OR (owner <> $1 AND starts_with(owner, $6)))
    ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING run_id, owner_token
"""
_NEXT = "SELECT extract(epoch FROM min(owner_until) - now()) FROM runs WHERE NOT ended AND owner <> $1"
_DRIVEN = "NOT ended AND owner_until >= now()"
_RENEW = """
UPDATE runs SET owner_until = now() + make_interval(secs => $2)
WHERE owner = $1 AND run_id = ANY($3::text[])
RETURNING run_id
"""


class PostgresStore:
    """Implements anneal_supervisor.store.Store."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._blobs = BlobCache()

    @property
    def database(self) -> Database:
        """The pool, for what else the schema holds."""
        return self._db

    @classmethod
    async def open(cls, dsn: str) -> "PostgresStore":
        migrations = files("anneal_supervisor") / "migrations"
        return cls(await Database.open(dsn, schema=SCHEMA, migrations=migrations, max_size=6))

    async def close(self) -> None:
        await self._db.close()

    async def create_run(self, key: str, request: bytes, events: Sequence[Event], summary: bytes) -> str:
        last = events[-1]
        async with self._db.transaction() as conn:

            async def create() -> bytes:
                await conn.execute("INSERT INTO runs (run_id, summary) VALUES ($1, $2)", last.run_id, summary)
                head = (last.run_id, last.seq, last.hash, False, summary, 0)
                await conn.execute(_APPEND, *head, *_columns(events), *message_columns([]))
                return last.run_id.encode()

            return (await once(conn, f"CreateRun/{key}", request, create)).decode()

    async def created(self, key: str, request: bytes) -> str:
        async with self._db.connection() as conn:
            known = await answered(conn, f"CreateRun/{key}", request)
        return "" if known is None else known.decode()

    async def append(
        self, events: Sequence[Event], outgoing: Sequence[Outgoing], *, token: int, summary: bytes | None, ended: bool
    ) -> Sequence[Left]:
        last = events[-1]
        try:
            async with self._db.connection() as conn:
                row = await conn.fetchrow(
                    _APPEND,
                    *(last.run_id, last.seq, last.hash, ended, summary, token),
                    *_columns(events),
                    *message_columns(outgoing),
                )
        except asyncpg.UniqueViolationError as e:
            raise StaleToken(f"run {last.run_id} was continued by another replica") from e
        if row is None or row["moved"] != 1:
            raise StaleToken(f"run {last.run_id} is driven by another replica")
        return _left(outgoing, zip(row["ids"] or (), row["msg_ids"] or (), strict=True))

    async def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> list[Event]:
        async with self._db.connection() as conn:
            rows = await conn.fetch(
                "SELECT * FROM run_events WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3", run_id, after, limit
            )
        return _readable(rows)

    async def head(self, run_id: str) -> Head:
        async with self._db.connection() as conn:
            row = await conn.fetchrow("SELECT head_seq, head_hash, ended FROM runs WHERE run_id = $1", run_id)
        if row is None:
            raise NotFound(f"no run {run_id}", field="run_id")
        return Head(seq=row["head_seq"], hash=row["head_hash"], ended=row["ended"])

    async def summaries(self, limit: int) -> list[bytes]:
        async with self._db.connection() as conn:
            rows = await conn.fetch("SELECT summary FROM runs ORDER BY created_at DESC, run_id LIMIT $1", limit)
        return [row["summary"] for row in rows]

    async def claim(self, replica: Replica, lease_s: float, limit: int, held: Sequence[str]) -> Claimed:
        predecessors = f"{replica.place}#"
        async with self._db.transaction() as conn:
            rows = await conn.fetch(_CLAIM, replica.owner, lease_s, limit, list(held), replica.address, predecessors)
            next_s = await conn.fetchval(_NEXT, replica.owner)
        runs = [(row["run_id"], row["owner_token"]) for row in rows]
        return Claimed(runs=runs, next_s=None if next_s is None else float(next_s))

    async def driver_address(self, run_id: str) -> str:
        query = f"SELECT owner_address FROM runs WHERE run_id = $1 AND {_DRIVEN}"  # noqa: S608
        async with self._db.connection() as conn:
            return await conn.fetchval(query, run_id) or ""

    async def addresses(self) -> list[str]:
        query = f"SELECT DISTINCT owner_address FROM runs WHERE {_DRIVEN} AND owner_address <> ''"  # noqa: S608
        async with self._db.connection() as conn:
            return [row["owner_address"] for row in await conn.fetch(query)]

    async def renew(self, owner: str, lease_s: float, run_ids: Sequence[str]) -> set[str]:
        async with self._db.transaction() as conn:
            rows = await conn.fetch(_RENEW, owner, lease_s, list(run_ids))
        return {row["run_id"] for row in rows}

    async def let_go(self, owner: str) -> None:
        async with self._db.transaction() as conn:
            await conn.execute("UPDATE runs SET owner_until = 'epoch' WHERE owner = $1 AND NOT ended", owner)

    async def put_outgoing(self, outgoing: Sequence[Outgoing]) -> Sequence[Left]:
        async with self._db.connection() as conn:
            rows = await conn.fetch(INSERT_OUTGOING, *message_columns(outgoing))
        return _left(outgoing, ((row["id"], row["msg_id"]) for row in rows))

    async def take_outgoing(self, limit: int, without: Collection[int]) -> Sequence[Left]:
        async with self._db.connection() as conn:
            rows = await conn.fetch(
                "SELECT * FROM outbox WHERE id <> ALL($2::bigint[]) ORDER BY id LIMIT $1", limit, list(without)
            )
        return [(r["id"], Outgoing(subject=r["subject"], msg_id=r["msg_id"], data=r["data"])) for r in rows]

    async def drop_outgoing(self, ids: Collection[int]) -> None:
        async with self._db.connection() as conn:
            await conn.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", list(ids))

    async def put_blob(self, sha256: str, media_type: str, content: bytes) -> None:
        async with self._db.connection() as conn:
            await conn.execute(
                "INSERT INTO blobs (sha256, media_type, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                sha256,
                media_type,
                content,
            )
        self._blobs.put(sha256, media_type, content)

    async def get_blob(self, sha256: str) -> tuple[str, bytes]:
        if found := self._blobs.get(sha256):
            return found
        async with self._db.connection() as conn:
            row = await conn.fetchrow("SELECT media_type, content FROM blobs WHERE sha256 = $1", sha256)
        if row is None:
            raise NotFound(f"no blob {sha256}", field="sha256")
        self._blobs.put(sha256, row["media_type"], row["content"])
        return row["media_type"], row["content"]


def _columns(events: Sequence[Event]) -> tuple[list[object], ...]:
    """The rows of these events, column by column, without their run's id."""
    rows = [(e.seq, e.at, e.type, e.actor, canonical_json(e.payload), e.prev_hash, e.hash) for e in events]
    return tuple(map(list, zip(*rows, strict=True)))


def message_columns(outgoing: Sequence[Outgoing]) -> tuple[list[object], ...]:
    """Messages for INSERT_OUTGOING."""
    return [o.subject for o in outgoing], [o.msg_id for o in outgoing], [o.data for o in outgoing]


def _left(outgoing: Sequence[Outgoing], rows: Iterable[tuple[int, str]]) -> Sequence[Left]:
    """The messages with the ids of their rows, in the order in which they were given."""
    ids = {msg_id: row_id for row_id, msg_id in rows}
    return [(ids[o.msg_id], o) for o in outgoing]


def _readable(rows: Sequence[asyncpg.Record]) -> list[Event]:
    """The events up to the first that cannot be read; that one alone is an error, so that nothing before it is lost."""
    found: list[Event] = []
    for row in rows:
        try:
            found.append(_event(row))
        except ValueError as e:
            if found:
                break
            raise damaged(row["run_id"], row["seq"], f"event {row['seq']} cannot be read") from e
    return found


def _event(row: asyncpg.Record) -> Event:
    return Event(
        run_id=row["run_id"],
        seq=row["seq"],
        at=row["at"],
        type=row["type"],
        actor=row["actor"],
        payload=json.loads(row["payload"]),
        prev_hash=row["prev_hash"],
        hash=row["hash"],
    )
