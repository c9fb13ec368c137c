"""Whatever the order of calls and expiries: never two holders, and tokens only rise. On a real database."""

import asyncio
from dataclasses import dataclass, field

import asyncpg
from anneal_checkpoint.drivers.base import Driver
from anneal_checkpoint.leases import Leases
from anneal_checkpoint.model import DriverKind
from anneal_checkpoint.store_postgres import PostgresStore, open_database
from anneal_checkpoint.targets import Targets
from anneal_runtime.errors import Leased, StaleToken
from anneal_runtime.postgres import Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.checkpoint.conftest import FolderDriver

RUNS = ("run-a", "run-b", "run-c")
STEPS = st.one_of(
    st.tuples(st.just("acquire"), st.sampled_from(RUNS)),
    st.tuples(st.just("renew"), st.sampled_from(RUNS)),
    st.tuples(st.just("release"), st.sampled_from(RUNS)),
    st.tuples(st.just("expire"), st.just("")),
    st.tuples(st.just("all at once"), st.just("")),
)


@dataclass
class World:
    """What an outside observer knows: who was told that it holds the lease, and every token ever given."""

    leases: Leases
    database: Database
    holder: str = ""
    expired: bool = False
    tokens: dict[str, int] = field(default_factory=dict)
    newest: int = 0
    keys: int = 0

    def key(self) -> str:
        self.keys += 1
        return f"{id(self)}-{self.keys}"

    async def acquire(self, run: str) -> None:
        try:
            granted = await self.leases.acquire(self.key(), "lab", run, 600)
        except Leased as refused:
            named = refused.details["run_id"]
        else:
            self.won(run, granted.token)
            return
        assert not self.expired
        assert self.holder not in ("", run)
        assert named == self.holder

    def won(self, run: str, token: int) -> None:
        assert self.holder in ("", run) or self.expired, "two holders at once"
        if self.holder == run:
            assert token == self.tokens[run] == self.newest
        else:
            assert token > self.newest, "a token was given twice"
        self.holder, self.expired, self.newest = run, False, token
        self.tokens[run] = token

    async def renew(self, run: str) -> None:
        token = self.tokens.get(run, 0)
        try:
            await self.leases.renew(self.key(), "lab", run, token, 600)
        except StaleToken:
            assert self.holder != run
            return
        assert self.holder == run
        self.expired = False

    async def release(self, run: str) -> None:
        token = self.tokens.get(run, 0)
        try:
            await self.leases.release(self.key(), "lab", run, token)
        except StaleToken:
            assert token != self.newest
            return
        assert token == self.newest
        if self.holder == run:
            self.holder, self.expired = "", False

    async def expire(self) -> None:
        await self.database.pool.execute(
            "UPDATE leases SET expires_at = clock_timestamp() - interval '1 s' WHERE run_id IS NOT NULL"
        )
        self.expired = self.holder != ""

    async def all_at_once(self) -> None:
        answers = await asyncio.gather(
            *(self.leases.acquire(self.key(), "lab", run, 600) for run in RUNS), return_exceptions=True
        )
        won = [(run, a.token) for run, a in zip(RUNS, answers, strict=True) if not isinstance(a, BaseException)]
        assert all(isinstance(a, Leased) for a in answers if isinstance(a, BaseException))
        assert len(won) == 1, "none or several of the runs got the target"
        self.won(*won[0])

    async def step(self, what: str, run: str) -> None:
        match what:
            case "acquire":
                await self.acquire(run)
            case "renew":
                await self.renew(run)
            case "release":
                await self.release(run)
            case "expire":
                await self.expire()
            case _:
                await self.all_at_once()


async def play(database: Database, driver: Driver, steps: list[tuple[str, str]]) -> None:
    await database.pool.execute("TRUNCATE leases, targets, operations, snapshots, effects, idempotency")
    await database.pool.execute(
        "INSERT INTO targets (name, driver, host, port, login, key_path, host_key, machine, mission_services)"
        " VALUES ('lab', 'nspawn', '', 0, '', '', '', 'm1', '{}')"
    )
    store = PostgresStore(database)
    targets = Targets(store, {DriverKind.NSPAWN: driver}, wake_sweeper=lambda: None)
    leases = Leases(store, targets, ttl_max_s=3600, keep_runs=2, wake_sweeper=lambda: None)
    world = World(leases, database)
    for what, run in steps:
        await world.step(what, run)


def test_there_is_never_a_second_holder_and_tokens_only_rise(postgres_dsn: str, driver: FolderDriver) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(open_database(postgres_dsn, max_size=4))

        @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(steps=st.lists(STEPS, min_size=1, max_size=15))
        def check(steps: list[tuple[str, str]]) -> None:
            runner.run(play(database, driver, steps))

        try:
            check()
        finally:
            runner.run(database.close())


async def test_the_database_refuses_a_lease_row_that_is_half_held(postgres_dsn: str) -> None:
    database = await open_database(postgres_dsn, max_size=2)
    try:
        await database.pool.execute("INSERT INTO leases (target, run_id) VALUES ('lab', 'run-1')")
    except asyncpg.CheckViolationError:
        pass
    else:
        raise AssertionError("a holder without an expiry was accepted")
    finally:
        await database.close()
