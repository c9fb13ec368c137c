import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_checkpoint.effects import Effects
from anneal_checkpoint.model import Effect
from anneal_checkpoint.store_postgres import PostgresStore, open_database
from anneal_runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, StaleToken
from anneal_runtime.postgres import Database

from tests.integration.checkpoint.conftest import (
    FolderDriver,
    Serve,
    Stub,
    acquire,
    effect_request,
    release,
    restore_request,
    snapshot_request,
)
from tests.integration.checkpoint.test_leases import lapse


async def finish(stub: Stub, state: str, exit_code: int = 0, key: str = "e1") -> pb.Effect:
    answer = await stub.FinishEffect(pb.FinishEffectRequest(idempotency_key=key, state=state, exit_code=exit_code))
    return answer.effect


async def start(stub: Stub, key: str = "e1") -> pb.Effect:
    return (await stub.StartEffect(pb.StartEffectRequest(idempotency_key=key))).effect


async def states(stub: Stub, run_id: str = "run-1") -> dict[str, str]:
    listed = await stub.ListEffects(pb.ListEffectsRequest(run_id=run_id))
    return {e.key: e.state for e in listed.effects}


async def test_an_effect_is_on_record_before_it_happens_and_told_apart_from_a_repeat(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    first = await stub.BeginEffect(effect_request("run-1", token))
    assert not first.begun_before
    assert first.effect.state == "intended"
    assert first.effect.intended_at.seconds > 0
    again = await stub.BeginEffect(effect_request("run-1", token))
    assert again.begun_before
    assert again.effect == first.effect
    ended = await finish(stub, "applied", 3)
    assert (ended.state, ended.exit_code) == ("applied", 3)
    assert ended.finished_at.seconds > 0
    after = await stub.BeginEffect(effect_request("run-1", token))
    assert (after.begun_before, after.effect.state) == (True, "applied")


async def test_another_action_under_the_same_key_is_refused(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token))
    with pytest.raises(AlreadyExists) as refused:
        await stub.BeginEffect(effect_request("run-1", token, action_hash="h2"))
    assert refused.value.field == "idempotency_key"


async def test_of_many_callers_with_one_key_exactly_one_begins_it(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    answers = await asyncio.gather(*(stub.BeginEffect(effect_request("run-1", token)) for _ in range(8)))
    assert sorted(a.begun_before for a in answers) == [False] + [True] * 7


async def test_an_end_is_recorded_once(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token))
    assert await finish(stub, "applied") == await finish(stub, "applied")
    with pytest.raises(FailedPrecondition) as refused:
        await finish(stub, "applied", 1)
    assert refused.value.field == "state"
    assert (await finish(stub, "reverted")).state == "reverted"
    with pytest.raises(FailedPrecondition):
        await finish(stub, "applied")


async def test_an_end_of_nothing_or_of_no_known_kind_is_refused(stub: Stub) -> None:
    with pytest.raises(NotFound):
        await finish(stub, "applied")
    with pytest.raises(NotFound):
        await start(stub)
    for state in ("done", "", "intended", "started"):
        with pytest.raises(InvalidArgument) as refused:
            await finish(stub, state)
        assert refused.value.field == "state"


async def test_an_effect_seen_at_work_is_started_until_it_has_an_end(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token))
    started = await start(stub)
    assert started.state == "started"
    assert started.started_at.seconds > 0
    assert not started.HasField("finished_at")
    assert await start(stub) == started
    assert (await stub.BeginEffect(effect_request("run-1", token))).effect.state == "started"
    ended = await finish(stub, "applied", 3)
    assert (ended.state, ended.exit_code, ended.started_at) == ("applied", 3, started.started_at)
    with pytest.raises(FailedPrecondition):
        await start(stub)


async def test_an_intent_tells_its_ledger_and_how_long_the_lease_still_holds(serve: Serve, stub: Stub) -> None:
    token = await acquire(stub, "run-1", ttl=30)
    first = await stub.BeginEffect(effect_request("run-1", token))
    assert 25 < first.lease_left.ToMilliseconds() / 1000 <= 30
    async with serve() as restarted:
        again = await restarted.BeginEffect(effect_request("run-1", token))
    assert again.ledger == first.ledger
    assert len(first.ledger) == 36


async def test_a_command_that_its_run_has_left_behind_begins_nothing(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0, seq=5))
    await stub.BeginEffect(effect_request("run-1", token, key="first", seq=8))
    await stub.BeginEffect(effect_request("run-1", token, key="first", seq=8))
    await stub.Restore(restore_request("run-1", token, 0, key="k", seq=12))
    # Asleep since before it asked the ledger: its attempt is over, although nobody ever began its effect.
    with pytest.raises(StaleToken, match="command 12") as late:
        await stub.BeginEffect(effect_request("run-1", token, key="second", seq=9))
    assert late.value.field == "command_seq"
    with pytest.raises(StaleToken):
        await stub.Restore(restore_request("run-1", token, 0, key="k2", seq=11))
    await stub.BeginEffect(effect_request("run-1", token, key="third", seq=14))
    await release(stub, "run-1", token)
    # The next holder counts by its own log.
    await stub.BeginEffect(effect_request("run-2", await acquire(stub, "run-2"), key="fourth", seq=3))


async def test_what_has_no_end_is_unknown_when_its_run_lets_go_or_another_comes(stub: Stub, postgres_dsn: str) -> None:
    token = await acquire(stub, "run-1")
    for key in ("done", "begun"):
        await stub.BeginEffect(effect_request("run-1", token, key=key))
    await finish(stub, "applied", key="done")
    await release(stub, "run-1", token)
    assert await states(stub) == {"done": "applied", "begun": "unknown"}
    second = await acquire(stub, "run-2")
    await stub.BeginEffect(effect_request("run-2", second, key="slow"))
    await start(stub, "slow")
    await lapse(postgres_dsn)
    assert await states(stub, "run-2") == {"slow": "started"}
    third = await acquire(stub, "run-3")
    (slow,) = (await stub.ListEffects(pb.ListEffectsRequest(run_id="run-2"))).effects
    assert slow.state == "unknown"
    assert "run-3" in slow.detail
    with pytest.raises(AlreadyExists):
        await stub.BeginEffect(effect_request("run-3", third, key="slow"))
    # Its worker slept, and comes back with what the target says: that is better than not to know.
    assert (await finish(stub, "applied", 2, key="slow")).exit_code == 2


async def test_an_undo_settles_the_effect_that_it_takes_back(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    for key in ("good", "bad", "lost"):
        await stub.BeginEffect(effect_request("run-1", token, key=key))
        await finish(stub, "applied", key=key)
        await stub.BeginEffect(effect_request("run-1", token, key=f"undo-{key}", undoes=key))
    await finish(stub, "applied", key="undo-good")
    await finish(stub, "applied", 3, key="undo-bad")
    await finish(stub, "unknown", key="undo-lost")
    found = await states(stub)
    assert (found["good"], found["bad"], found["lost"]) == ("reverted", "unknown", "unknown")
    listed = (await stub.ListEffects(pb.ListEffectsRequest(run_id="run-1"))).effects
    assert [e.detail for e in listed if e.key == "bad"] == ["the script that takes it back ended with 3"]
    # An undo of what was never begun has nothing to settle.
    await stub.BeginEffect(effect_request("run-1", token, key="undo-none", undoes="never"))
    assert (await finish(stub, "applied", key="undo-none")).state == "applied"


async def test_an_effect_without_an_end_makes_a_restore_boot_even_where_no_file_differs(
    stub: Stub, driver: FolderDriver
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    await stub.BeginEffect(effect_request("run-1", token, key="ended"))
    await finish(stub, "applied", key="ended")
    assert not (await stub.Restore(restore_request("run-1", token, 0, key="k1"))).restored
    # Whoever began it may only have slept, and a target that was booted refuses it.
    await stub.BeginEffect(effect_request("run-1", token, key="open"))
    assert (await stub.Restore(restore_request("run-1", token, 0, key="k2"))).restored
    assert await states(stub) == {"ended": "reverted", "open": "reverted"}
    assert not (await stub.Restore(restore_request("run-1", token, 0, key="k3"))).restored


async def test_what_happened_is_recorded_even_after_the_lease_was_given_back(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token))
    await release(stub, "run-1", token)
    assert (await finish(stub, "applied")).state == "applied"


async def test_an_open_effect_is_taken_over_by_whoever_begins_it_again(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token, seq=4))
    again = await stub.BeginEffect(effect_request("run-1", token, seq=6))
    assert again.begun_before
    assert again.effect.command_seq == 6
    await finish(stub, "applied")
    assert (await stub.BeginEffect(effect_request("run-1", token, seq=9))).effect.command_seq == 6


async def test_a_restore_marks_what_it_took_back_and_nothing_else(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    await stub.BeginEffect(effect_request("run-1", token, key="kept"))
    await finish(stub, "applied", key="kept")
    await stub.Snapshot(snapshot_request("run-1", token, 1))
    for key, code in (("ran", 0), ("broke", 1)):
        await stub.BeginEffect(effect_request("run-1", token, key=key))
        await finish(stub, "applied", code, key=key)
    # Begun, end unknown: whatever it did is gone, and applying it anew is another effect.
    await stub.BeginEffect(effect_request("run-1", token, key="open"))
    (driver.machine("m1") / "a").write_text("changed")
    assert (await stub.Restore(restore_request("run-1", token, 1, key="k"))).restored
    assert await states(stub) == {"kept": "applied", "ran": "reverted", "broke": "reverted", "open": "reverted"}
    for key in ("open", "ran"):
        with pytest.raises(FailedPrecondition, match="reverted") as late:
            await stub.BeginEffect(effect_request("run-1", token, key=key))
        assert late.value.field == "idempotency_key"


async def test_an_effect_without_a_name_is_refused(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    for field in ("item_id", "action_hash", "run_id"):
        request = effect_request("run-1", token)
        setattr(request.effect, field, "")
        with pytest.raises(InvalidArgument) as refused:
            await stub.BeginEffect(request)
        assert refused.value.field == f"effect.{field}"


@pytest_asyncio.fixture
async def database(postgres_dsn: str, stub: Stub) -> AsyncIterator[Database]:
    """The service's own database, beside it."""
    one = await open_database(postgres_dsn, max_size=2)
    yield one
    await one.close()


USUAL = Effect(
    key="e1",
    target="lab",
    run_id="run-1",
    item_id="i",
    attempt=1,
    action_hash="h",
    fencing_token=0,
    command_seq=7,
)
_HALF_RESTORED = """
INSERT INTO operations (key, kind, target, run_id, generation, request_hash, state)
VALUES ('o', 'restore', 'lab', 'run-0', 0, 'h', 'started')
"""


@pytest.mark.parametrize(
    ("spoiled", "changes"),
    [
        ("", {"fencing_token": 9}),
        ("", {"run_id": "run-2"}),
        ("", {"target": "other"}),
        ("UPDATE leases SET newest_seq = 8", {}),
        ("UPDATE leases SET expires_at = clock_timestamp() - interval '1 s'", {}),
        ("DELETE FROM targets", {}),
        (_HALF_RESTORED, {}),
    ],
)
async def test_the_usual_way_to_begin_an_effect_is_open_only_where_no_rule_objects(
    stub: Stub, database: Database, spoiled: str, changes: dict[str, object]
) -> None:
    token = await acquire(stub, "run-1")
    effect = replace(USUAL, fencing_token=token)
    store = PostgresStore(database)
    async with database.connection() as conn:
        await conn.execute(spoiled or "SELECT 1")
    spoilt = replace(effect, **changes)  # type: ignore[arg-type]
    async with store.glance() as tx:
        assert await tx.begin_effect(spoilt) is None
    with pytest.raises((StaleToken, NotFound, FailedPrecondition)):
        await Effects(store)._begin(spoilt)
    assert await states(stub) == {}


async def test_the_usual_way_writes_what_the_rules_would_and_waits_for_nobody(stub: Stub, database: Database) -> None:
    token = await acquire(stub, "run-1")
    effect = replace(USUAL, fencing_token=token)
    store = PostgresStore(database)
    async with store.transaction() as holder:
        await holder.lock_lease("lab")
        async with store.glance() as tx:
            assert await tx.begin_effect(effect) is None
    async with store.glance() as tx:
        usual = await tx.begin_effect(effect)
    assert usual is not None
    begun, ledger, left_s = usual
    by_rules = await Effects(store)._begin(replace(effect, key="e2"))
    assert (ledger, round(left_s)) == (by_rules.ledger, round(by_rules.lease_left_s))
    when = {"intended_at": None, "key": ""}
    assert replace(begun, **when) == replace(by_rules.effect, **when)  # type: ignore[arg-type]
    async with store.transaction() as tx:
        assert (await tx.lock_lease("lab")).newest_seq == 7
