"""The persisted shape, version 1. Golden files are never edited: a new version is a new migration and a new file."""

import json
from pathlib import Path

import asyncpg

from tests.integration.memory.conftest import Serve, recall

GOLDEN = Path(__file__).parent / "golden"


async def test_a_row_of_version_1_is_read_as_it_was_meant(serve: Serve, postgres_dsn: str) -> None:
    golden = json.loads((GOLDEN / "memory_v1.json").read_text())
    async with serve(tip_ttl_days=3650) as stub:
        row = golden["row"]
        conn = await asyncpg.connect(postgres_dsn)
        await conn.execute(
            "INSERT INTO memory.memories SELECT * FROM json_populate_record(NULL::memory.memories, $1::json)",
            json.dumps(row),
        )
        await conn.close()
        [tip] = await recall(stub, row["item_id"], fingerprint=row["fingerprint"], skill=row["skill"])
    read = {name: getattr(tip, name) for name in golden["read"]}
    assert read == golden["read"]


async def test_the_tables_of_version_1_keep_their_columns(serve: Serve, postgres_dsn: str) -> None:
    golden = json.loads((GOLDEN / "tables_v1.json").read_text())
    async with serve():
        conn = await asyncpg.connect(postgres_dsn)
        rows = await conn.fetch(
            "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
            " WHERE table_schema = 'memory' AND table_name IN ('memories', 'audit')"
        )
        await conn.close()
    have = {f"{r['table_name']}.{r['column_name']}": f"{r['data_type']}, null: {r['is_nullable']}" for r in rows}
    # Later versions may add columns; those of version 1 stay what they were.
    assert {name: have.get(name) for name in golden} == golden
