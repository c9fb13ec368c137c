"""A stored log that somebody changed in the database itself: it is found out, and nothing is told from it."""

from pathlib import Path

import asyncpg
import pytest
from anneal_core.chain import Event

from tests.integration.supervisor.conftest import Anneal

DISABLE = "ALTER TABLE run_events DISABLE TRIGGER run_events_append_only"
ENABLE = "ALTER TABLE run_events ENABLE TRIGGER run_events_append_only"


async def flip(db: asyncpg.Connection, seq: int, at: int, *, bit: int = 1) -> None:
    """Changes one byte of a stored payload as a superuser can: past the trigger."""
    before = await db.fetchval("SELECT payload FROM run_events WHERE seq = $1", seq)
    await db.execute(DISABLE)
    await db.execute(
        "UPDATE run_events SET payload = set_byte(payload, $2::int, get_byte(payload, $2::int) # $3::int)"
        " WHERE run_id = 'run-1' AND seq = $1",
        seq,
        at,
        bit,
    )
    await db.execute(ENABLE)
    after = await db.fetchval("SELECT payload FROM run_events WHERE seq = $1", seq)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


async def flip_in_text(db: asyncpg.Connection, log: list[Event]) -> int:
    """Changes one letter of a title, so that the event still reads; returns its number."""
    seq = next(e.seq for e in log if "Rule rule_b" in e.model_dump_json())
    payload: bytes = await db.fetchval("SELECT payload FROM run_events WHERE seq = $1", seq)
    await flip(db, seq, payload.index(b"Rule rule_b"))
    return seq


@pytest.mark.parametrize(
    "statement", ["UPDATE run_events SET payload = '{}' WHERE seq = 2", "DELETE FROM run_events WHERE seq = 2"]
)
async def test_the_database_refuses_to_change_a_stored_event(superuser: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match="run_events is append-only"):
        await superuser.execute(statement)


async def test_one_flipped_byte_of_a_stored_event_is_found(
    anneal: Anneal, superuser: asyncpg.Connection, stored: list[Event]
) -> None:
    sound = await anneal("audit", "verify", "run-1")
    assert (sound.code, f"{len(stored)} events, the chain holds" in sound.out) == (0, True)
    seq = await flip_in_text(superuser, stored)
    damaged = await anneal("audit", "verify", "run-1")
    assert damaged.code == 1
    assert f"DAMAGED: run-1: event {seq} was changed after it was written (event {seq})" in damaged.out


@pytest.mark.parametrize(("at", "bit"), [(0, 1), (20, 0x80)], ids=["no JSON any more", "no text any more"])
async def test_a_flipped_byte_that_makes_an_event_unreadable_is_found_at_that_event(
    anneal: Anneal, superuser: asyncpg.Connection, at: int, bit: int
) -> None:
    await flip(superuser, 7, at, bit=bit)
    damaged = await anneal("audit", "verify", "run-1")
    assert damaged.code == 1
    assert "event 7 cannot be read" in damaged.out


@pytest.mark.parametrize("column", ["actor", "type", "prev_hash", "hash"])
async def test_a_changed_letter_beside_the_payload_is_found(
    anneal: Anneal, superuser: asyncpg.Connection, column: str
) -> None:
    await superuser.execute(DISABLE)
    await superuser.execute(f"UPDATE run_events SET {column} = overlay({column} placing 'x' from 2) WHERE seq = 5")
    damaged = await anneal("audit", "verify", "run-1")
    assert damaged.code == 1
    assert "event 5 " in damaged.out


async def test_the_first_of_two_damaged_events_is_named(
    anneal: Anneal, superuser: asyncpg.Connection, stored: list[Event]
) -> None:
    first = await flip_in_text(superuser, stored)
    await flip(superuser, first + 2, 0)
    assert f"event {first} was changed" in (await anneal("audit", "verify", "run-1")).out


async def test_an_event_that_was_taken_out_and_a_tail_that_was_cut_off_are_found(
    anneal: Anneal, superuser: asyncpg.Connection, stored: list[Event]
) -> None:
    await superuser.execute(DISABLE)
    await superuser.execute("DELETE FROM run_events WHERE seq = $1", len(stored))
    cut_off = await anneal("audit", "verify", "run-1")
    assert cut_off.code == 1
    assert f"it ends at event {len(stored) - 1}, but {len(stored)} were written" in cut_off.out
    await superuser.execute("DELETE FROM run_events WHERE seq = 4")
    assert "event 4 is missing" in (await anneal("audit", "verify", "run-1")).out


@pytest.mark.parametrize("readable", [True, False], ids=["it still reads", "it cannot be read"])
async def test_nothing_is_told_from_a_damaged_log_but_which_event_it_is_and_what_to_do(
    anneal: Anneal, superuser: asyncpg.Connection, stored: list[Event], readable: bool, tmp_path: Path
) -> None:
    seq = 7
    if readable:
        seq = await flip_in_text(superuser, stored)
    else:
        await flip(superuser, seq, 0)
    report = tmp_path / "r.html"
    for command in (
        ["report", "run-1", "-o", str(report)],
        ["report", "run-1", "-o", str(report.with_suffix(".json"))],
        ["show", "run-1"],
        ["show", "run-1", "--json"],
        ["explain", "run-1", "rule_a"],
        ["watch", "run-1"],
    ):
        done = await anneal(*command)
        assert done.code == 1, command
        assert f"the stored log of run-1 is damaged: event {seq} " in done.err
        assert "next: anneal audit verify run-1" in done.err
    assert not report.exists() and not report.with_suffix(".json").exists()


async def test_the_events_of_a_damaged_log_can_be_taken_away_for_a_closer_look(
    anneal: Anneal, superuser: asyncpg.Connection, stored: list[Event], tmp_path: Path
) -> None:
    seq = await flip_in_text(superuser, stored)
    file = tmp_path / "run.jsonl"
    assert (await anneal("report", "run-1", "-o", str(file))).code == 0
    offline = await anneal("audit", "verify", "--file", str(file))
    assert offline.code == 1
    assert f"event {seq} was changed" in offline.out


async def test_a_sound_run_has_its_report(anneal: Anneal, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    done = await anneal("report", "run-1", "-o", str(file))
    assert (done.code, done.err) == (0, "")
    assert "chain holds" in file.read_text()
