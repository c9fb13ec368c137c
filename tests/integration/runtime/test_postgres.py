"""The database on a real Postgres: migrations once each, transactions, idempotent writes, restarts."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from anneal_runtime.children import free_port
from anneal_runtime.errors import AlreadyExists, FailedPrecondition, Internal, InvalidArgument, Unavailable
from anneal_runtime.postgres import Database, once


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_notes.sql").write_text("CREATE TABLE notes (text text NOT NULL UNIQUE);")
    (folder / "README.md").write_text("not a migration")
    return folder


async def opened(dsn: str, migrations: Path, schema: str = "svc", max_size: int = 4) -> Database:
    return await Database.open(dsn, schema=schema, migrations=migrations, max_size=max_size)


async def test_migrations_run_once_and_new_ones_follow(postgres_dsn: str, migrations: Path) -> None:
    for _ in range(2):
        await (await opened(postgres_dsn, migrations)).close()
    (migrations / "0002_more.sql").write_text(
        "ALTER TABLE notes ADD COLUMN more int; INSERT INTO notes VALUES ('a', 1);"
    )
    db = await opened(postgres_dsn, migrations)
    assert await db.pool.fetchval("SELECT more FROM svc.notes") == 1
    assert await db.pool.fetchval("SELECT count(*) FROM schema_migrations") == 2
    await db.close()


async def test_several_processes_may_open_at_once(postgres_dsn: str, migrations: Path) -> None:
    opening = (opened(postgres_dsn, migrations, max_size=1) for _ in range(5))
    databases = await asyncio.gather(*opening)
    assert await databases[0].pool.fetchval("SELECT count(*) FROM schema_migrations") == 1
    await asyncio.gather(*(db.close() for db in databases))


async def test_an_edited_migration_is_refused(postgres_dsn: str, migrations: Path) -> None:
    await (await opened(postgres_dsn, migrations)).close()
    (migrations / "0001_notes.sql").write_text("CREATE TABLE notes (text text);")
    with pytest.raises(FailedPrecondition, match=r"0001_notes\.sql of schema svc was edited"):
        await opened(postgres_dsn, migrations)


async def test_a_schema_newer_than_the_program_is_refused(postgres_dsn: str, migrations: Path) -> None:
    (migrations / "0002_more.sql").write_text("SELECT 1;")
    await (await opened(postgres_dsn, migrations)).close()
    (migrations / "0002_more.sql").unlink()
    with pytest.raises(FailedPrecondition, match="newer than this program"):
        await opened(postgres_dsn, migrations)


async def test_a_failing_migration_leaves_nothing_of_itself(postgres_dsn: str, migrations: Path) -> None:
    broken = migrations / "0002_broken.sql"
    broken.write_text("CREATE TABLE half (id int); SELECT no_such_function();")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await opened(postgres_dsn, migrations)
    broken.write_text("CREATE TABLE half (id int);")
    await (await opened(postgres_dsn, migrations)).close()


@pytest.mark.parametrize("name", ["0003_gap.sql", "2_short.sql", "0001_twice.sql"])
async def test_badly_named_migrations_are_refused(postgres_dsn: str, migrations: Path, name: str) -> None:
    (migrations / name).write_text("SELECT 1;")
    with pytest.raises(InvalidArgument) as caught:
        await opened(postgres_dsn, migrations)
    assert caught.value.field == "migrations"


async def test_schemas_do_not_see_each_other(postgres_dsn: str, migrations: Path) -> None:
    one, two = await opened(postgres_dsn, migrations, "one"), await opened(postgres_dsn, migrations, "two")
    await one.pool.execute("INSERT INTO notes VALUES ('a')")
    assert await two.pool.fetchval("SELECT count(*) FROM notes") == 0
    await one.close()
    await two.close()


async def test_vectors_work_without_being_superuser(postgres_dsn: str, migrations: Path) -> None:
    (migrations / "0002_vector.sql").write_text(
        "CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE v (e vector(3));"
        "CREATE INDEX ON v USING hnsw (e vector_cosine_ops);"
    )
    db = await opened(postgres_dsn, migrations)
    await db.pool.execute("INSERT INTO v VALUES ('[1,0,0]')")
    assert await db.pool.fetchval("SELECT e <=> '[1,0,0]' FROM v") == 0
    assert not await db.pool.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    await db.close()


async def test_a_transaction_commits_whole_or_not_at_all(postgres_dsn: str, migrations: Path) -> None:
    db = await opened(postgres_dsn, migrations)
    async with db.transaction() as conn:
        await conn.execute("INSERT INTO notes VALUES ('kept')")

    async def fail_half_way() -> None:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO notes VALUES ('lost')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_half_way()
    with pytest.raises(asyncpg.UniqueViolationError):
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO notes VALUES ('kept')")
    assert [row["text"] for row in await db.pool.fetch("SELECT text FROM notes")] == ["kept"]
    await db.close()


async def test_an_empty_pool_is_unavailable_in_time(postgres_dsn: str, migrations: Path) -> None:
    db = await Database.open(postgres_dsn, schema="svc", migrations=migrations, max_size=1, timeout_s=0.5)
    async with db.transaction():
        with pytest.raises(Unavailable):
            async with db.transaction():
                pass
    await db.close()


async def test_a_connection_cut_in_the_middle_is_unavailable_and_the_next_one_works(
    postgres_dsn: str, migrations: Path
) -> None:
    db = await opened(postgres_dsn, migrations)

    async def cut() -> None:
        async with db.transaction() as conn:
            pid = await conn.fetchval("SELECT pg_backend_pid()")
            async with db.transaction() as other:
                await other.execute("SELECT pg_terminate_backend($1)", pid)
            await conn.execute("SELECT 1")

    with pytest.raises(Unavailable):
        await cut()
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT 1") == 1
        assert not conn.is_in_transaction()
    await db.close()


async def test_no_server_wrong_password_and_nonsense_are_told_apart(postgres_dsn: str, migrations: Path) -> None:
    nobody = f"postgresql://a:b@127.0.0.1:{free_port()}/x"
    with pytest.raises(Unavailable):
        await Database.open(nobody, schema="svc", migrations=migrations, timeout_s=0.3)
    wrong = postgres_dsn.replace("anneal:", "anneal:not-")
    with pytest.raises(FailedPrecondition) as caught:
        await opened(wrong, migrations)
    assert caught.value.field == "postgres_dsn"
    with pytest.raises(InvalidArgument):
        await opened("ftp://nowhere", migrations)
    with pytest.raises(InvalidArgument):
        await opened(postgres_dsn, migrations, schema='x"; DROP')


class Counter:
    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self) -> bytes:
        self.runs += 1
        await asyncio.sleep(0.02)
        return b"answer %d" % self.runs


async def test_the_same_key_and_request_runs_once(postgres_dsn: str, migrations: Path) -> None:
    db, run = await opened(postgres_dsn, migrations), Counter()
    answers = []
    for _ in range(2):
        async with db.transaction() as conn:
            answers.append(await once(conn, "k", b"req", run))
    assert (answers, run.runs) == ([b"answer 1", b"answer 1"], 1)
    await db.close()


async def test_two_at_once_run_once(postgres_dsn: str, migrations: Path) -> None:
    db, run = await opened(postgres_dsn, migrations), Counter()

    async def call() -> bytes:
        async with db.transaction() as conn:
            return await once(conn, "k", b"req", run)

    assert set(await asyncio.gather(*(call() for _ in range(4)))) == {b"answer 1"}
    assert run.runs == 1
    await db.close()


async def test_another_request_under_the_key_is_refused(postgres_dsn: str, migrations: Path) -> None:
    db, run = await opened(postgres_dsn, migrations), Counter()
    async with db.transaction() as conn:
        await once(conn, "k", b"req", run)
    with pytest.raises(AlreadyExists) as caught:
        async with db.transaction() as conn:
            await once(conn, "k", b"other", run)
    assert (caught.value.field, run.runs) == ("idempotency_key", 1)
    await db.close()


async def test_a_failed_run_leaves_the_key_free(postgres_dsn: str, migrations: Path) -> None:
    db, run = await opened(postgres_dsn, migrations), Counter()

    async def fail() -> bytes:
        raise Unavailable("not now")

    with pytest.raises(Unavailable):
        async with db.transaction() as conn:
            await once(conn, "k", b"req", fail)
    async with db.transaction() as conn:
        assert await once(conn, "k", b"req", run) == b"answer 1"
    await db.close()


async def test_once_wants_a_key_and_a_transaction(postgres_dsn: str, migrations: Path) -> None:
    db, run = await opened(postgres_dsn, migrations), Counter()
    for key in ("", "k" * 201):
        with pytest.raises(InvalidArgument) as caught:
            async with db.transaction() as conn:
                await once(conn, key, b"req", run)
        assert caught.value.field == "idempotency_key"
    with pytest.raises(Internal, match="outside a transaction"):
        async with db.pool.acquire() as conn:
            await once(conn, "k", b"req", run)
    await db.close()


async def test_old_answers_are_forgotten_at_the_next_start(postgres_dsn: str, migrations: Path) -> None:
    db, run = await opened(postgres_dsn, migrations), Counter()
    async with db.transaction() as conn:
        await once(conn, "k", b"req", run)
        await conn.execute("UPDATE idempotency SET created_at = now() - interval '8 days'")
    await db.close()
    db = await opened(postgres_dsn, migrations)
    assert await db.pool.fetchval("SELECT count(*) FROM idempotency") == 0
    await db.close()
