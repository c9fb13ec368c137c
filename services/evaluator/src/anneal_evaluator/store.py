"""Baselines, kept in Postgres. Small enough for one backend."""

from importlib.resources import files

from anneal.evaluator.v1 import evaluator_pb2 as pb
from anneal_runtime.faults import declare, faultpoint
from anneal_runtime.postgres import Database, once

SCHEMA = "evaluator"

AFTER_BASELINE = declare("evaluator.after_baseline")


class BaselineStore:
    """Measured baselines by skill, profile and fingerprint."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    async def open(cls, dsn: str) -> "BaselineStore":
        migrations = files("anneal_evaluator") / "migrations"
        return cls(await Database.open(dsn, schema=SCHEMA, migrations=migrations, max_size=2))

    async def close(self) -> None:
        await self._db.close()

    async def record(self, key: str, b: pb.Baseline) -> None:
        """Adds a measurement; the same key again adds nothing."""
        body = b.SerializeToString(deterministic=True)
        async with self._db.transaction() as conn:

            async def insert() -> bytes:
                await conn.execute(
                    "INSERT INTO baselines (skill, profile, fingerprint, baseline) VALUES ($1, $2, $3, $4)",
                    b.skill,
                    b.profile,
                    b.fingerprint,
                    body,
                )
                return b""

            await once(conn, f"RecordBaseline/{key}", body, insert)
        await faultpoint(AFTER_BASELINE)

    async def newest(self, skill: str, profile: str, fingerprint: str) -> pb.Baseline | None:
        """The newest measurement, or None."""
        async with self._db.transaction() as conn:
            body = await conn.fetchval(
                "SELECT baseline FROM baselines WHERE skill = $1 AND profile = $2 AND fingerprint = $3"
                " ORDER BY measured_at DESC LIMIT 1",
                skill,
                profile,
                fingerprint,
            )
        return pb.Baseline.FromString(body) if body is not None else None
