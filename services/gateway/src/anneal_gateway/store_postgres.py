"""The ledger in Postgres: the run's row is locked by its own update, so two gateways never overspend together."""

from uuid import UUID

import asyncpg
from anneal_runtime.errors import BudgetExhausted
from anneal_runtime.postgres import Connection, Database

from anneal_gateway.store import Caps, Reservation, RunUsage, Settlement

_RESERVE = """
WITH counted AS (
    INSERT INTO run_budgets AS b (run_id, calls, tokens_reserved) VALUES ($1, 1, $2)
    ON CONFLICT (run_id) DO UPDATE
    SET calls = b.calls + 1, tokens_reserved = b.tokens_reserved + $2, updated_at = now()
    WHERE b.calls < $3 AND b.tokens_used + b.tokens_reserved + $2 <= $4
    RETURNING b.calls
)
INSERT INTO model_calls (call_id, run_id, item_id, profile, role, requested_model, state, tokens_reserved, expires_at)
SELECT $5, $1, $6, $7, $8, $9, 'reserved', $2, now() + make_interval(secs => $10) FROM counted
RETURNING true
"""

# The run's row first, as in a reservation: two calls of one run then never wait for each other crosswise.
_SETTLE = """
WITH budget AS MATERIALIZED (
    SELECT run_id FROM run_budgets
    WHERE run_id = (SELECT run_id FROM model_calls WHERE call_id = $1) FOR UPDATE
), ended AS (
    UPDATE model_calls c SET
        state = CASE WHEN $3 = '' THEN 'answered' ELSE 'failed' END,
        model = $2, reason = $3, ended_at = now(),
        prompt_tokens = coalesce($4::bigint, c.tokens_reserved),
        completion_tokens = coalesce($5::bigint, 0),
        estimated = $4::bigint IS NULL
    FROM budget WHERE c.run_id = budget.run_id AND c.call_id = $1 AND c.state = 'reserved'
    RETURNING c.run_id, c.tokens_reserved, c.prompt_tokens + c.completion_tokens AS used
)
UPDATE run_budgets b SET
    tokens_reserved = b.tokens_reserved - ended.tokens_reserved,
    tokens_used = b.tokens_used + ended.used, updated_at = now()
FROM ended WHERE b.run_id = ended.run_id
"""

_ABANDON = """
WITH dead AS (
    UPDATE model_calls SET state = 'abandoned', ended_at = now(), prompt_tokens = tokens_reserved, estimated = true
    WHERE run_id = $1 AND state = 'reserved' AND expires_at < now()
    RETURNING tokens_reserved
), total AS (SELECT coalesce(sum(tokens_reserved), 0) AS tokens FROM dead)
UPDATE run_budgets b SET
    tokens_reserved = b.tokens_reserved - total.tokens, tokens_used = b.tokens_used + total.tokens
FROM total WHERE b.run_id = $1 AND total.tokens > 0
"""


class PostgresLedger:
    """Ledger on the gateway's schema."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, reservation: Reservation, caps: Caps) -> None:
        """See Ledger.reserve."""
        r = reservation
        if r.tokens > caps.tokens:
            raise BudgetExhausted(
                f"This call may need {r.tokens} tokens, more than the {caps.tokens} that a run has in all.",
                field="max_tokens",
            )
        call = (UUID(r.call_id), r.item_id, r.profile, r.role, r.model, r.ttl_s)
        async with self._database.transaction() as connection:
            # The run's row first, always: two calls of one run then never wait for each other crosswise.
            if not await connection.fetchval(_RESERVE, r.run_id, r.tokens, caps.calls, caps.tokens, *call):
                raise await self._refusal(connection, r, caps)
            await connection.execute(_ABANDON, r.run_id)

    async def _refusal(self, connection: Connection, r: Reservation, caps: Caps) -> BudgetExhausted:
        usage = _usage(await connection.fetchrow("SELECT * FROM run_budgets WHERE run_id = $1", r.run_id))
        if usage.calls >= caps.calls:
            return BudgetExhausted(
                f"Run {r.run_id} has made {usage.calls} of {caps.calls} model calls.", field="calls_per_run"
            )
        held = usage.tokens_used + usage.tokens_reserved
        return BudgetExhausted(
            f"Run {r.run_id} has used or set aside {held} of {caps.tokens} tokens; this call may need {r.tokens}.",
            field="tokens_per_run",
        )

    async def settle(self, settlement: Settlement) -> None:
        """See Ledger.settle."""
        s = settlement
        async with self._database.connection() as connection:
            await connection.execute(_SETTLE, UUID(s.call_id), s.model, s.reason, s.prompt_tokens, s.completion_tokens)

    async def usage(self, run_id: str) -> RunUsage:
        """See Ledger.usage."""
        async with self._database.transaction() as connection:
            return _usage(await connection.fetchrow("SELECT * FROM run_budgets WHERE run_id = $1", run_id))


def _usage(row: asyncpg.Record | None) -> RunUsage:
    if row is None:
        return RunUsage()
    return RunUsage(calls=row["calls"], tokens_used=row["tokens_used"], tokens_reserved=row["tokens_reserved"])
