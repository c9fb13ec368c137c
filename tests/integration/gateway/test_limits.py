"""Limits that hold whoever asks: calls and tokens of a run, and the circuit of an upstream."""

import asyncio
import time
import uuid
from importlib import resources

import pytest
from anneal_gateway.store import Caps, Reservation, Settlement
from anneal_gateway.store_postgres import PostgresLedger
from anneal_runtime.errors import BudgetExhausted
from anneal_runtime.postgres import Database

from tests.integration.gateway.conftest import MakeGateway, scripted_profile
from tests.support.model_server import Behaviour, ModelServer


def _reservation(tokens: int = 100, run: str = "r", ttl_s: float = 60) -> Reservation:
    return Reservation(
        call_id=str(uuid.uuid4()),
        run_id=run,
        item_id="i",
        profile="p",
        role="worker",
        model="m",
        tokens=tokens,
        ttl_s=ttl_s,
    )


async def _ledger(dsn: str) -> tuple[Database, PostgresLedger]:
    migrations = resources.files("anneal_gateway").joinpath("migrations")
    database = await Database.open(dsn, schema="gateway", migrations=migrations)
    return database, PostgresLedger(database)


async def test_two_gateways_together_never_reserve_more_than_a_run_has(postgres_dsn: str) -> None:
    (one, first), (two, second) = await _ledger(postgres_dsn), await _ledger(postgres_dsn)
    caps = Caps(calls=1000, tokens=1000)

    async def attempt(n: int) -> bool:
        try:
            await (first if n % 2 else second).reserve(_reservation(tokens=90), caps)
        except BudgetExhausted:
            return False
        return True

    granted = await asyncio.gather(*(attempt(n) for n in range(40)))
    assert sum(granted) == 11
    assert (await first.usage("r")).tokens_reserved == 990
    for database in (one, two):
        await database.close()


async def test_settling_gives_back_what_was_not_used_and_only_once(postgres_dsn: str) -> None:
    database, ledger = await _ledger(postgres_dsn)
    kept = _reservation(tokens=400)
    await ledger.reserve(kept, Caps(calls=10, tokens=500))
    for _ in range(2):
        await ledger.settle(Settlement(call_id=kept.call_id, model="m", prompt_tokens=30, completion_tokens=20))
    usage = await ledger.usage("r")
    assert (usage.tokens_used, usage.tokens_reserved) == (50, 0)
    await database.close()


async def test_a_call_whose_gateway_died_is_charged_in_full_by_the_next_one(postgres_dsn: str) -> None:
    database, ledger = await _ledger(postgres_dsn)
    dead = _reservation(tokens=300, ttl_s=-1)
    await ledger.reserve(dead, Caps(calls=10, tokens=1000))
    await ledger.reserve(_reservation(tokens=100), Caps(calls=10, tokens=1000))
    usage = await ledger.usage("r")
    assert (usage.tokens_used, usage.tokens_reserved) == (300, 100)
    # It turns out to live after all: its own word comes too late and changes nothing.
    await ledger.settle(Settlement(call_id=dead.call_id, prompt_tokens=1, completion_tokens=1))
    assert await ledger.usage("r") == usage
    await database.close()


async def test_a_call_larger_than_the_whole_budget_is_refused_and_leaves_nothing(postgres_dsn: str) -> None:
    database, ledger = await _ledger(postgres_dsn)
    with pytest.raises(BudgetExhausted, match="1001 tokens"):
        await ledger.reserve(_reservation(tokens=1001), Caps(calls=10, tokens=1000))
    assert await database.pool.fetchval("SELECT count(*) FROM run_budgets") == 0
    await database.close()


async def test_the_hard_cap_of_calls_holds_for_a_run_and_not_for_its_neighbour(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    limits = {"calls_per_run": 2, "tokens_per_run": 1_000_000}
    gateway = await make_gateway({"scripted": scripted_profile(model, limits=limits)})
    statuses = [(await gateway.ask()).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refusal = await gateway.ask()
    assert refusal.json()["error"]["code"] == "insufficient_quota"
    assert refusal.json()["error"]["param"] == "calls_per_run"
    assert (await gateway.ask(run="run-2")).status_code == 200
    assert len(model.requests) == 3


async def test_tokens_are_set_aside_before_the_call_so_that_parallel_calls_cannot_overspend(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    model.behaviour, model.delay_s = Behaviour.SLOW, 0.2
    limits = {"calls_per_run": 100, "tokens_per_run": 2000}
    gateway = await make_gateway({"scripted": scripted_profile(model, limits=limits)})
    answers = await asyncio.gather(*(gateway.ask(max_tokens=800) for _ in range(5)))
    # Each may need 800 and its prompt: only two fit at once, although each uses far less in the end.
    assert sorted(a.status_code for a in answers) == [200, 200, 429, 429, 429]
    assert {a.json()["error"]["param"] for a in answers if a.status_code == 429} == {"tokens_per_run"}
    assert (await gateway.ask(max_tokens=800)).status_code == 200


async def test_an_upstream_that_never_says_what_it_used_is_charged_in_full(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    model.behaviour = Behaviour.NO_USAGE
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    assert (await gateway.ask(max_tokens=500)).status_code == 200
    usage = await gateway.app._door._ledger.usage("run-1")
    assert usage.tokens_used > 500
    assert usage.tokens_reserved == 0


async def test_a_dead_upstream_is_left_alone_and_asked_again_by_one_probe(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    model.behaviour = Behaviour.DOWN
    circuit = {"failures": 2, "open_s": 0.3}
    gateway = await make_gateway({"scripted": scripted_profile(model, circuit=circuit)})
    for _ in range(2):
        assert (await gateway.ask()).json()["error"]["code"] == "upstream_unavailable"
    begun = time.monotonic()
    refused = await gateway.ask()
    assert time.monotonic() - begun < 0.2
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
    assert int(refused.headers["retry-after"]) >= 1
    assert "the engine is dead" in refused.json()["error"]["message"]
    assert len(model.requests) == 2
    # Nothing was asked, so nothing was counted.
    assert (await gateway.app._door._ledger.usage("run-1")).calls == 2
    await asyncio.sleep(0.3)
    model.behaviour, model.delay_s = Behaviour.SLOW, 0.2
    answers = await asyncio.gather(*(gateway.ask() for _ in range(4)))
    assert sorted(a.status_code for a in answers) == [200, 503, 503, 503]
    assert (await gateway.ask()).status_code == 200
