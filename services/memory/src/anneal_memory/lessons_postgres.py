"""Lessons and times of items on Postgres. SQL only."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from anneal_runtime.postgres import Connection

from anneal_memory.lessons import ItemTime, Lesson
from anneal_memory.model import Scope

# The newest so many times of an item, or of its category, say what is usual.
_TIMES = 20
# Fewer than these of a category say nothing of another item in it.
_LEAST = 3

_USUAL = """
WITH asked AS (SELECT * FROM unnest($2::text[], $3::text[]) AS a (item_id, category)),
own AS (
    SELECT a.item_id, percentile_cont(0.9) WITHIN GROUP (ORDER BY t.seconds) AS seconds
    FROM asked a
    CROSS JOIN LATERAL (
        SELECT seconds FROM item_times WHERE skill = $1 AND item_id = a.item_id ORDER BY seen_at DESC LIMIT $4
    ) t
    GROUP BY a.item_id
),
kind AS (
    SELECT c.category, percentile_cont(0.9) WITHIN GROUP (ORDER BY t.seconds) AS seconds
    FROM (SELECT DISTINCT category FROM asked WHERE category <> '') c
    CROSS JOIN LATERAL (
        SELECT seconds FROM item_times WHERE skill = $1 AND category = c.category ORDER BY seen_at DESC LIMIT $4
    ) t
    GROUP BY c.category HAVING count(*) >= $5
)
SELECT a.item_id, coalesce(own.seconds, kind.seconds) AS seconds
FROM asked a LEFT JOIN own USING (item_id) LEFT JOIN kind USING (category)
WHERE coalesce(own.seconds, kind.seconds) IS NOT NULL
"""


class PostgresLessons:
    """LessonTx on one connection."""

    _conn: Connection

    async def save_lessons(self, scope: Scope, run_id: str, lessons: Sequence[Lesson]) -> None:
        await self._conn.executemany(
            "INSERT INTO lessons (id, skill, fingerprint, item_id, lesson, mechanism, bans, certainty, run_id)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET"
            " mechanism = excluded.mechanism, bans = excluded.bans, certainty = excluded.certainty,"
            " run_id = excluded.run_id, seen_at = clock_timestamp()",
            [
                (
                    x.id, scope.skill, scope.fingerprint, x.item_id, x.lesson, x.mechanism, list(x.bans), x.certainty,
                    run_id,
                )
                for x in lessons
            ],
        )  # fmt: skip

    async def lessons(self, scope: Scope, item_ids: Sequence[str], since: datetime, most: int) -> Sequence[Lesson]:
        rows = await self._conn.fetch(
            "SELECT l.* FROM unnest($3::text[]) WITH ORDINALITY AS a (item_id, place)"
            " CROSS JOIN LATERAL (SELECT id, item_id, lesson, mechanism, bans, certainty, run_id, seen_at FROM lessons"
            " WHERE skill = $1 AND fingerprint = $2 AND item_id = a.item_id AND NOT forgotten AND seen_at >= $4"
            " ORDER BY seen_at DESC, id LIMIT $5) l ORDER BY a.place, l.seen_at DESC, l.id",
            scope.skill,
            scope.fingerprint,
            list(dict.fromkeys(item_ids)),
            since,
            most,
        )
        return [
            Lesson(
                id=r["id"],
                item_id=r["item_id"],
                lesson=r["lesson"],
                mechanism=r["mechanism"],
                bans=tuple(r["bans"]),
                certainty=r["certainty"],
                run_id=r["run_id"],
            )
            for r in rows
        ]

    async def forget_lesson(self, id_: str) -> bool:
        return (
            await self._conn.fetchval("UPDATE lessons SET forgotten = true WHERE id = $1 RETURNING true", id_) is True
        )

    async def save_times(self, skill: str, run_id: str, times: Sequence[ItemTime]) -> None:
        await self._conn.executemany(
            "INSERT INTO item_times (skill, item_id, category, run_id, seconds) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (skill, item_id, run_id) DO UPDATE SET seconds = excluded.seconds",
            [(skill, t.item_id, t.category, run_id, t.seconds) for t in times],
        )

    async def usual_times(self, skill: str, items: Mapping[str, str]) -> Mapping[str, float]:
        rows = await self._conn.fetch(_USUAL, skill, list(items), list(items.values()), _TIMES, _LEAST)
        return {r["item_id"]: float(r["seconds"]) for r in rows}
