"""The store on Postgres, schema `checkpoint`. SQL only; the rules are in the rooms beside it."""

# ruff: noqa: S608  # nothing but this module's own lists of columns is put into a statement

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any

from anneal_runtime.postgres import Connection, Database, once

from anneal_checkpoint.model import (
    DriverKind,
    Effect,
    EffectState,
    Grounds,
    Lease,
    Operation,
    OperationKind,
    OperationState,
    Scene,
    Snapshot,
    SnapshotState,
    Target,
)
from anneal_checkpoint.store import Tx

SCHEMA = "checkpoint"

_SNAPSHOT = "name, target, driver, machine, run_id, generation, state, taken_at"
_OPERATION = "key, kind, target, run_id, generation, request_hash, state, restored, changed_paths, took_s"
_EFFECT = (
    "key, target, run_id, item_id, attempt, action_hash, fencing_token, command_seq, undoes, state, exit_code, detail,"
    " intended_at, started_at, finished_at"
)
_TARGET = "name, driver, host, port, login, key_path, host_key, machine, mission_services"
# The clock is read when the row is ours: one that waited for the lock must not be judged by the time before it waited.
_LOCK_LEASE = """
WITH held AS MATERIALIZED (SELECT run_id, token, expires_at, newest_seq FROM leases WHERE target = $1 FOR UPDATE)
SELECT run_id, token, expires_at, newest_seq, coalesce(expires_at > clock_timestamp(), false) AS live,
    coalesce(extract(epoch FROM expires_at - clock_timestamp())::float8, 0) AS left_s
FROM held
"""
_UNFINISHED = f"SELECT {_OPERATION} FROM operations WHERE target = $1 AND state = 'started' ORDER BY seq DESC LIMIT 1"


def _prefixed(columns: str, prefix: str) -> str:
    """The columns of one table of several, under names of their own."""
    return ", ".join(f"{prefix}.{c} AS {prefix}_{c}" for c in columns.split(", "))


def _of(row: Any, prefix: str, key: str) -> dict[str, Any] | None:
    """The part of a joined row that is one table's; None where it had no row."""
    if row[f"{prefix}_{key}"] is None:
        return None
    cut = len(prefix) + 1
    return {name[cut:]: value for name, value in row.items() if name.startswith(f"{prefix}_")}


_SAVED = f"""
SELECT {_SNAPSHOT} FROM snapshots
WHERE (target = $1 AND run_id = $3 AND (state <> 'dropped' OR generation = $4)) OR state = 'dropping'
ORDER BY seq DESC
"""
_SCENE = f"""
SELECT {_prefixed(_TARGET, "t")}, {_prefixed(_OPERATION, "o")}, {_prefixed(_OPERATION, "u")},
    (SELECT json_agg(s) FROM ({_SAVED}) s)::text AS saved
FROM (SELECT 1) AS one LEFT JOIN targets t ON t.name = $1 LEFT JOIN operations o ON o.key = $2
LEFT JOIN LATERAL ({_UNFINISHED}) u ON true
"""
_GROUNDS = f"""
SELECT {_prefixed(_TARGET, "t")}, {_prefixed(_OPERATION, "u")}, {_prefixed(_EFFECT, "e")},
    (SELECT id::text FROM ledger) AS ledger
FROM (SELECT 1) AS one LEFT JOIN targets t ON t.name = $1 LEFT JOIN effects e ON e.key = $2
LEFT JOIN LATERAL ({_UNFINISHED}) u ON true
"""
_KEEP = """
WITH others AS (
    UPDATE snapshots SET state = CASE WHEN name = ANY($3) THEN 'dropped' ELSE 'dropping' END
    WHERE name = ANY($2) OR name = ANY($3)
), done AS (
    INSERT INTO operations (key, kind, target, run_id, generation, request_hash, state, took_s, finished_at)
    VALUES ($4, $5, $6, $7, $8, $9, 'done', $10, clock_timestamp())
    ON CONFLICT (key) DO UPDATE SET state = 'done', took_s = excluded.took_s, finished_at = excluded.finished_at
), following AS (
    INSERT INTO snapshots (name, target, driver, machine, run_id, generation, state)
    VALUES ($11, $12, $13, $14, $15, $16, $17) ON CONFLICT DO NOTHING
)
UPDATE snapshots SET state = 'kept', taken_at = clock_timestamp() WHERE name = $1
"""
_INSERT_EFFECT = f"""
WITH noted AS (UPDATE leases SET newest_seq = $8 WHERE target = $2 AND newest_seq < $8)
INSERT INTO effects (key, target, run_id, item_id, attempt, action_hash, fencing_token, command_seq, undoes, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {_EFFECT}
"""
# What a new effect needs, in one statement: where anything is otherwise, nothing is written and the rules are asked.
# A lease that somebody holds the row of is not waited for: what was read before a wait would be old.
_BEGIN_EFFECT = f"""
WITH held AS MATERIALIZED (
    SELECT expires_at FROM leases
    WHERE target = $2 AND run_id = $3 AND token = $7 AND newest_seq <= $8 FOR UPDATE SKIP LOCKED
), fit AS MATERIALIZED (
    SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_s FROM held
    WHERE expires_at > clock_timestamp()
        AND EXISTS (SELECT 1 FROM targets WHERE name = $2)
        AND NOT EXISTS (SELECT 1 FROM operations WHERE target = $2 AND state = 'started')
), noted AS (
    UPDATE leases SET newest_seq = $8 WHERE target = $2 AND newest_seq < $8 AND EXISTS (SELECT 1 FROM fit)
)
INSERT INTO effects (key, target, run_id, item_id, attempt, action_hash, fencing_token, command_seq, undoes, state)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM fit ON CONFLICT DO NOTHING
RETURNING {_EFFECT}, (SELECT id::text FROM ledger) AS ledger, (SELECT left_s FROM fit) AS left_s
"""
_END_EFFECT = f"""
UPDATE effects SET state = $2, exit_code = CASE WHEN $2 = 'applied' THEN $3 ELSE exit_code END, detail = $4,
    finished_at = clock_timestamp()
WHERE key = $1 AND state = ANY($5) AND undoes = '' RETURNING {_EFFECT}
"""


async def open_database(dsn: str, *, max_size: int) -> Database:
    """Opens the service's schema and brings it up to date."""
    return await Database.open(dsn, schema=SCHEMA, migrations=files(__package__) / "migrations", max_size=max_size)


class PostgresStore:
    """Transactions over a pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        async with self._database.transaction() as conn:
            yield PostgresTx(conn)

    @asynccontextmanager
    async def glance(self) -> AsyncIterator[Tx]:
        async with self._database.connection() as conn:
            yield PostgresTx(conn)


class PostgresTx:
    """One transaction on one connection."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def once(self, key: str, request: bytes, run: Callable[[], Awaitable[bytes]]) -> bytes:
        return await once(self._conn, key, request, run)

    # --- targets ------------------------------------------------------------------------------------------------------

    async def target(self, name: str) -> Target | None:
        row = await self._conn.fetchrow("SELECT * FROM targets WHERE name = $1", name)
        return None if row is None else _target(row)

    async def held_target(self, name: str) -> tuple[Target | None, str]:
        row = await self._conn.fetchrow(
            "SELECT t.*, l.run_id FROM targets t"
            " LEFT JOIN leases l ON l.target = t.name AND l.expires_at > clock_timestamp() WHERE t.name = $1",
            name,
        )
        return (None, "") if row is None else (_target(row), row["run_id"] or "")

    async def targets(self) -> Sequence[Target]:
        return [_target(r) for r in await self._conn.fetch("SELECT * FROM targets ORDER BY name")]

    async def insert_target(self, target: Target) -> bool:
        row = await self._conn.fetchrow(
            "INSERT INTO targets (name, driver, host, port, login, key_path, host_key, machine, mission_services)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING name",
            target.name,
            target.driver,
            target.host,
            target.port,
            target.user,
            target.key_path,
            target.host_key,
            target.machine,
            list(target.mission_services),
        )
        return row is not None

    async def delete_target(self, name: str) -> None:
        await self._conn.execute("DELETE FROM targets WHERE name = $1", name)

    # --- leases: expiry by the clock of the database, read when the row is ours ---------------------------------------

    async def lock_lease(self, target: str) -> Lease:
        row = await self._conn.fetchrow(_LOCK_LEASE, target)
        if row is None:
            await self._conn.execute("INSERT INTO leases (target) VALUES ($1) ON CONFLICT DO NOTHING", target)
            row = await self._conn.fetchrow(_LOCK_LEASE, target)
        assert row is not None  # inserted above
        return Lease(**{"target": target, **dict(row), "run_id": row["run_id"] or ""})

    async def holders(self) -> Mapping[str, str]:
        rows = await self._conn.fetch("SELECT target, run_id FROM leases WHERE expires_at > clock_timestamp()")
        return {r["target"]: r["run_id"] for r in rows}

    async def grant(self, target: str, run_id: str, token: int, ttl_s: float) -> datetime:
        expires_at: datetime = await self._conn.fetchval(
            "UPDATE leases SET token = $3, run_id = $2, newest_seq = CASE WHEN token = $3 THEN newest_seq ELSE 0 END,"
            " expires_at = greatest("
            "  CASE WHEN run_id = $2 THEN expires_at END, clock_timestamp() + make_interval(secs => $4))"
            " WHERE target = $1 RETURNING expires_at",
            target,
            run_id,
            token,
            ttl_s,
        )
        return expires_at

    async def note_command(self, target: str, command_seq: int) -> None:
        await self._conn.execute("UPDATE leases SET newest_seq = $2 WHERE target = $1", target, command_seq)

    async def clear_lease(self, target: str) -> None:
        await self._conn.execute("UPDATE leases SET run_id = NULL, expires_at = NULL WHERE target = $1", target)

    # --- operations ---------------------------------------------------------------------------------------------------

    async def scene(self, target: str, run_id: str, generation: int, key: str) -> Scene:
        row = await self._conn.fetchrow(_SCENE, target, key, run_id, generation)
        assert row is not None  # one row, whatever is missing in it
        found = [_snapshot(_plain(s)) for s in json.loads(row["saved"] or "[]")]
        known, operation, unfinished = _of(row, "t", "name"), _of(row, "o", "key"), _of(row, "u", "key")
        return Scene(
            target=_target(known) if known else None,
            operation=_operation(operation) if operation else None,
            unfinished=_operation(unfinished) if unfinished else None,
            saved=tuple(s for s in found if (s.target, s.run_id) == (target, run_id)),
            marked=tuple(s for s in reversed(found) if s.state is SnapshotState.DROPPING),
        )

    async def insert_operation(self, operation: Operation) -> None:
        await self._conn.execute(
            "INSERT INTO operations (key, kind, target, run_id, generation, request_hash, state)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            operation.key,
            operation.kind,
            operation.target,
            operation.run_id,
            operation.generation,
            operation.request_hash,
            operation.state,
        )

    async def start_operation(self, key: str, changed_paths: Sequence[str]) -> None:
        await self._conn.execute(
            "UPDATE operations SET state = 'started', changed_paths = $2 WHERE key = $1 AND state = 'intended'",
            key,
            list(changed_paths),
        )

    async def finish_operation(self, key: str, *, restored: bool, took_s: float) -> Operation:
        row = await self._conn.fetchrow(
            "UPDATE operations SET state = 'done', restored = $2, took_s = $3, finished_at = clock_timestamp()"
            f" WHERE key = $1 RETURNING {_OPERATION}",
            key,
            restored,
            took_s,
        )
        return _operation(row)

    async def unfinished_restore(self, target: str) -> Operation | None:
        row = await self._conn.fetchrow(_UNFINISHED, target)
        return None if row is None else _operation(row)

    async def half_restored(self) -> Sequence[str]:
        rows = await self._conn.fetch("SELECT DISTINCT target FROM operations WHERE state = 'started' ORDER BY target")
        return [r["target"] for r in rows]

    async def finish_restores(self, target: str) -> None:
        await self._conn.execute(
            "UPDATE operations SET state = 'done', restored = true, finished_at = clock_timestamp()"
            " WHERE target = $1 AND state = 'started'",
            target,
        )

    async def purge_operations(self, older_than_s: float) -> None:
        await self._conn.execute(
            "DELETE FROM operations WHERE finished_at < clock_timestamp() - make_interval(secs => $1)", older_than_s
        )

    # --- snapshots ----------------------------------------------------------------------------------------------------

    async def snapshot(self, target: str, run_id: str, generation: int) -> Snapshot | None:
        row = await self._conn.fetchrow(
            f"SELECT {_SNAPSHOT} FROM snapshots WHERE target = $1 AND run_id = $2 AND generation = $3",
            target,
            run_id,
            generation,
        )
        return None if row is None else _snapshot(row)

    async def snapshots(self, target: str, *, run_id: str | None = None) -> Sequence[Snapshot]:
        rows = await self._conn.fetch(
            f"SELECT {_SNAPSHOT} FROM snapshots WHERE target = $1 AND ($2::text IS NULL OR run_id = $2)"
            " AND state <> 'dropped' ORDER BY seq DESC",
            target,
            run_id,
        )
        return [_snapshot(r) for r in rows]

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        await self._conn.execute(
            "INSERT INTO snapshots (name, target, driver, machine, run_id, generation, state)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (target, run_id, generation) DO UPDATE"
            " SET state = excluded.state, driver = excluded.driver, machine = excluded.machine,"
            " taken_at = CASE WHEN excluded.state = 'kept' THEN clock_timestamp() END",
            snapshot.name,
            snapshot.target,
            snapshot.driver,
            snapshot.machine,
            snapshot.run_id,
            snapshot.generation,
            snapshot.state,
        )

    async def keep_snapshot(
        self,
        name: str,
        operation: Operation,
        *,
        dropping: Sequence[str],
        dropped: Sequence[str],
        following: Snapshot,
    ) -> None:
        o, f = operation, following
        await self._conn.execute(
            _KEEP,
            *(name, list(dropping), list(dropped)),
            *(o.key, o.kind, o.target, o.run_id, o.generation, o.request_hash, o.took_s),
            *(f.name, f.target, f.driver, f.machine, f.run_id, f.generation, f.state),
        )

    async def mark_snapshots(self, names: Sequence[str], state: SnapshotState) -> None:
        await self._conn.execute("UPDATE snapshots SET state = $2 WHERE name = ANY($1)", list(names), state)

    async def snapshots_to_drop(self) -> Sequence[Snapshot]:
        rows = await self._conn.fetch(f"SELECT {_SNAPSHOT} FROM snapshots WHERE state = 'dropping' ORDER BY seq")
        return [_snapshot(r) for r in rows]

    # --- effects ------------------------------------------------------------------------------------------------------

    async def grounds(self, target: str, key: str) -> Grounds:
        row = await self._conn.fetchrow(_GROUNDS, target, key)
        assert row is not None  # one row, whatever is missing in it
        known, unfinished, effect = _of(row, "t", "name"), _of(row, "u", "key"), _of(row, "e", "key")
        return Grounds(
            target=_target(known) if known else None,
            unfinished=_operation(unfinished) if unfinished else None,
            known=_effect(effect) if effect else None,
            ledger=row["ledger"],
        )

    async def effect(self, key: str) -> Effect | None:
        row = await self._conn.fetchrow(f"SELECT {_EFFECT} FROM effects WHERE key = $1 FOR UPDATE", key)
        return None if row is None else _effect(row)

    async def begin_effect(self, effect: Effect) -> tuple[Effect, str, float] | None:
        row = await self._conn.fetchrow(_BEGIN_EFFECT, *_values(effect))
        if row is None:
            return None
        begun = dict(row)
        ledger, left_s = begun.pop("ledger"), begun.pop("left_s")
        return _effect(begun), ledger, left_s

    async def insert_effect(self, effect: Effect) -> Effect:
        return _effect(await self._conn.fetchrow(_INSERT_EFFECT, *_values(effect)))

    async def end_effect(
        self, key: str, state: EffectState, exit_code: int, detail: str, *, after: Collection[EffectState]
    ) -> Effect | None:
        row = await self._conn.fetchrow(_END_EFFECT, key, state, exit_code, detail, list(after))
        return None if row is None else _effect(row)

    async def update_effect(self, effect: Effect) -> Effect:
        return _effect(
            await self._conn.fetchrow(
                "UPDATE effects SET state = $2, exit_code = $3, fencing_token = $4, command_seq = $5, detail = $6,"
                " started_at = coalesce(started_at, CASE WHEN $2 = 'started' THEN clock_timestamp() END),"
                " finished_at = CASE WHEN $2 NOT IN ('intended', 'started') THEN clock_timestamp() END"
                f" WHERE key = $1 RETURNING {_EFFECT}",
                effect.key,
                effect.state,
                effect.exit_code,
                effect.fencing_token,
                effect.command_seq,
                effect.detail,
            )
        )

    async def effects(self, run_id: str) -> Sequence[Effect]:
        rows = await self._conn.fetch(f"SELECT {_EFFECT} FROM effects WHERE run_id = $1 ORDER BY seq", run_id)
        return [_effect(r) for r in rows]

    async def has_open_effects(self, target: str, run_id: str) -> bool:
        return bool(
            await self._conn.fetchval(
                "SELECT EXISTS (SELECT FROM effects WHERE target = $1 AND run_id = $2"
                " AND state IN ('intended', 'started'))",
                target,
                run_id,
            )
        )

    async def revert_effects(self, target: str, since: datetime) -> None:
        await self._conn.execute(
            "UPDATE effects SET state = 'reverted', detail = 'by a restore', finished_at = clock_timestamp()"
            " WHERE target = $1 AND intended_at > $2 AND state <> 'reverted'",
            target,
            since,
        )

    async def abandon_effects(self, target: str, run_id: str, detail: str) -> None:
        await self._conn.execute(
            "UPDATE effects SET state = 'unknown', detail = $3, finished_at = clock_timestamp()"
            " WHERE target = $1 AND run_id = $2 AND state IN ('intended', 'started')",
            target,
            run_id,
            detail,
        )


def _target(row: Any) -> Target:
    return Target(
        name=row["name"],
        driver=DriverKind(row["driver"]),
        host=row["host"],
        port=row["port"],
        user=row["login"],
        key_path=row["key_path"],
        host_key=row["host_key"],
        machine=row["machine"],
        mission_services=tuple(row["mission_services"]),
    )


def _operation(row: Any) -> Operation:
    kind, state, paths = OperationKind(row["kind"]), OperationState(row["state"]), tuple(row["changed_paths"])
    return Operation(**{**dict(row), "kind": kind, "state": state, "changed_paths": paths})


def _plain(saved: dict[str, Any]) -> dict[str, Any]:
    """A state that came as JSON."""
    taken_at = saved["taken_at"] and datetime.fromisoformat(saved["taken_at"])
    return {**saved, "taken_at": taken_at}


def _snapshot(row: Any) -> Snapshot:
    return Snapshot(**{**dict(row), "driver": DriverKind(row["driver"]), "state": SnapshotState(row["state"])})


def _values(e: Effect) -> tuple[object, ...]:
    """A new effect, in the order of its columns."""
    key = (e.key, e.target, e.run_id, e.item_id, e.attempt, e.action_hash)
    return (*key, e.fencing_token, e.command_seq, e.undoes, e.state)


def _effect(row: Any) -> Effect:
    return Effect(**{**dict(row), "state": EffectState(row["state"])})
