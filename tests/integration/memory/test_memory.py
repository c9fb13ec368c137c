import asyncio

import asyncpg
import pytest
from anneal.memory.v1 import memory_pb2 as pb
from anneal_runtime import faults
from anneal_runtime.errors import AlreadyExists, Internal, InvalidArgument, NotFound

from tests.integration.memory.conftest import EL9, Serve, Stub, outcome, recall, record


async def audit(dsn: str) -> list[tuple[str, str]]:
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch("SELECT run_id, change FROM memory.audit ORDER BY seq")
    await conn.close()
    return [(r["run_id"], r["change"]) for r in rows]


async def test_what_worked_comes_back_exactly_as_it_ran(stub: Stub) -> None:
    script = "#!/bin/bash\nsed -i 's/ä/ö/' \"$1\"\n"
    assert await record(stub, outcome(script)) == pb.RecordResponse(tips=1)
    [tip] = await recall(stub)
    assert (tip.kind, tip.content, tip.action_kind, tip.origin) == ("tip", script, "bash", "vendor")
    assert (tip.run_id, tip.uses, tip.successes, tip.mechanism) == ("run-1", 1, 1, "because")
    assert tip.action_hash == outcome(script).action_hash
    assert tip.utility == pytest.approx(2 / 3, abs=1e-4)


async def test_a_ban_names_the_script_by_its_hash_alone(stub: Stub) -> None:
    assert await record(stub, outcome("false", worked=False)) == pb.RecordResponse(bans=1)
    [ban] = await recall(stub)
    assert (ban.kind, ban.content) == ("ban", "")
    assert ban.action_hash == outcome("false").action_hash


async def test_nothing_is_recalled_for_another_machine_skill_or_item(stub: Stub) -> None:
    await record(stub, outcome("true"))
    assert await recall(stub, fingerprint=EL9 + " ") == []
    assert await recall(stub, skill="stig2") == []
    assert await recall(stub, "rule-2") == []


async def test_the_same_record_twice_counts_once(stub: Stub) -> None:
    first = await record(stub, outcome("true"), outcome("false", worked=False))
    [before, _] = await recall(stub)
    assert await record(stub, outcome("true"), outcome("false", worked=False)) == first
    with pytest.raises(AlreadyExists) as refused:
        await record(stub, outcome("other"))
    assert refused.value.field == "idempotency_key"
    [after, _] = await recall(stub)
    assert (after.id, after.uses) == (before.id, 1)


async def test_credit_goes_to_the_advice_that_was_followed_and_to_nothing_else(stub: Stub) -> None:
    await record(stub, outcome("good"), outcome("also good"))
    tips = {t.content: t for t in (await stub.ListTips(pb.ListTipsRequest(skill="stig"))).tips}
    await record(stub, outcome("good", tip_id=tips["good"].id), outcome("also good"), run="run-2")
    after = {t.content: t for t in (await stub.ListTips(pb.ListTipsRequest(skill="stig"))).tips}
    assert (after["good"].uses, after["good"].successes) == (2, 2)
    assert (after["also good"].uses, after["also good"].successes) == (1, 1)
    assert after["good"].utility > after["also good"].utility
    [best] = await recall(stub)
    assert best.content == "good"


async def test_advice_that_was_adapted_is_credited_beside_the_script_that_ran(stub: Stub) -> None:
    await record(stub, outcome("advice"))
    [tip] = await recall(stub)
    await record(stub, outcome("adapted", tip_id=tip.id), run="run-2")
    after = {t.content: t.uses for t in (await stub.ListTips(pb.ListTipsRequest())).tips}
    assert after == {"advice": 2, "adapted": 1}


async def test_a_tip_that_fails_loses_worth_and_in_the_end_is_banned(stub: Stub, postgres_dsn: str) -> None:
    await record(stub, outcome("shaky"))
    [tip] = await recall(stub)
    worth = tip.utility
    for n in range(2, 6):
        assert tip.kind == "tip"
        await record(stub, outcome("shaky", worked=False, tip_id=tip.id), run=f"run-{n}")
        [tip] = await recall(stub)
        assert tip.utility < worth
        worth = tip.utility
    assert (tip.kind, tip.uses, tip.successes) == ("ban", 5, 1)
    await record(stub, outcome("shaky"), run="run-6")
    [tip] = await recall(stub)
    assert tip.kind == "tip"
    changes = [change for _, change in await audit(postgres_dsn)]
    assert changes == ["learnt", "debited", "debited", "debited", "banned", "lifted"]


async def test_outcomes_of_two_runs_at_once_are_all_counted(serve: Serve) -> None:
    async with serve() as one, serve() as two:
        await record(one, outcome("true"), outcome("false", worked=False))
        tip = (await recall(one))[0]
        await asyncio.gather(
            *(
                record(stub, outcome("true", tip_id=tip.id), outcome("false", worked=False), run=f"run-{n}-{m}")
                for n in range(5)
                for m, stub in enumerate((one, two))
            )
        )
        [tip, ban] = await recall(one)
    assert (tip.uses, tip.successes) == (11, 11)
    assert (ban.uses, ban.successes) == (11, 0)


async def test_a_record_is_written_whole_or_not_at_all(stub: Stub) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await record(stub, outcome("true"), outcome("adapted", tip_id="f" * 32))
    assert refused.value.field == "outcomes[1].tip_id"
    assert await recall(stub) == []
    faults.arm("memory.before_commit=raise")
    try:
        with pytest.raises(Internal):
            await record(stub, outcome("true"))
    finally:
        faults.arm("")
    assert await recall(stub) == []
    # The key of a write that never was is free.
    assert (await record(stub, outcome("true"))).tips == 1


async def test_a_retry_after_a_lost_answer_gets_the_answer(stub: Stub) -> None:
    faults.arm("memory.after_commit=raise")
    try:
        with pytest.raises(Internal):
            await record(stub, outcome("true"))
    finally:
        faults.arm("")
    assert (await record(stub, outcome("true"))).tips == 1
    assert (await recall(stub))[0].uses == 1


async def test_what_a_person_forgets_stays_forgotten_and_in_the_audit(stub: Stub, postgres_dsn: str) -> None:
    await record(stub, outcome("true"))
    [tip] = await recall(stub)
    for key in ("f1", "f1", "f2"):
        await stub.Forget(pb.ForgetRequest(idempotency_key=key, tip_id=tip.id))
    assert await record(stub, outcome("true"), run="run-2") == pb.RecordResponse()
    assert await recall(stub) == []
    assert not (await stub.ListTips(pb.ListTipsRequest())).tips
    assert await audit(postgres_dsn) == [("run-1", "learnt"), ("", "forgotten")]
    with pytest.raises(NotFound) as refused:
        await stub.Forget(pb.ForgetRequest(idempotency_key="f3", tip_id="nothing"))
    assert refused.value.field == "tip_id"


async def test_the_audit_cannot_be_rewritten(stub: Stub, postgres_dsn: str) -> None:
    await record(stub, outcome("true"))
    conn = await asyncpg.connect(postgres_dsn)
    for statement in ("UPDATE memory.audit SET run_id = 'x'", "DELETE FROM memory.audit", "TRUNCATE memory.audit"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await conn.execute(statement)
    await conn.close()


async def test_a_wrong_field_is_named(stub: Stub) -> None:
    good = outcome("true")
    cases: list[tuple[str, dict[str, object]]] = [
        ("item_id", {"item_id": "rule 1"}),
        ("action_hash", {"action_hash": "00"}),
        ("action_hash", {"content": "another script"}),
        ("action_kind", {"action_kind": "perl"}),
        ("content", {"content": "x" * 131_073}),
        ("content", {"content": ""}),
        ("origin", {"origin": "x" * 101}),
    ]
    for field, wrong in cases:
        bad = pb.Outcome()
        bad.CopyFrom(good)
        for name, value in wrong.items():
            setattr(bad, name, value)
        with pytest.raises(InvalidArgument) as refused:
            await record(stub, good, bad)
        assert refused.value.field == f"outcomes[1].{field}"
    with pytest.raises(InvalidArgument) as refused:
        await record(stub, good, fingerprint="")
    assert refused.value.field == "fingerprint"
    with pytest.raises(InvalidArgument) as refused:
        await stub.Record(pb.RecordRequest(run_id="r", skill="stig", fingerprint=EL9))
    assert refused.value.field == "idempotency_key"
    with pytest.raises(InvalidArgument) as refused:
        await stub.ListTips(pb.ListTipsRequest(limit=5000))
    assert refused.value.field == "limit"


async def test_foreign_words_are_cut_and_scripts_never(stub: Stub) -> None:
    await record(stub, outcome("x" * 131_072, mechanism="m" * 10_000, action_title="t" * 1000))
    [tip] = await recall(stub)
    assert len(tip.content) == 131_072
    assert len(tip.mechanism) == 2000
    assert tip.mechanism.endswith("[cut]")
    assert len(tip.action_title) == 300


async def test_a_run_of_a_full_profile_is_recorded_and_recalled_in_one_call_each(stub: Stub) -> None:
    outcomes = [outcome(f"fix {n}", item=f"rule-{n}", worked=n % 3 > 0) for n in range(497)]
    counts = await record(stub, *outcomes)
    assert (counts.tips, counts.bans) == (331, 166)
    assert len(await recall(stub, *(f"rule-{n}" for n in range(497)))) == 497


async def test_memories_outlive_the_service(serve: Serve) -> None:
    async with serve() as stub:
        await record(stub, outcome("true"))
        before = await recall(stub)
    async with serve() as stub:
        [after] = await recall(stub)
    after.utility = before[0].utility
    assert [after] == before


async def test_an_old_tip_is_worth_less_and_a_ban_runs_out(serve: Serve, postgres_dsn: str) -> None:
    async with serve(half_life_days=10, ban_ttl_days=30) as stub:
        await record(stub, outcome("true"), outcome("false", worked=False))
        conn = await asyncpg.connect(postgres_dsn)
        await conn.execute("UPDATE memory.memories SET seen_at = seen_at - interval '20 days'")
        [tip, _] = await recall(stub)
        assert tip.utility == pytest.approx(2 / 3 / 4, abs=1e-4)
        await conn.execute("UPDATE memory.memories SET seen_at = seen_at - interval '20 days'")
        await conn.close()
        assert [t.kind for t in await recall(stub)] == ["tip"]


async def conflicts(stub: Stub, *items: str, fingerprint: str = EL9) -> dict[str, list[str]]:
    request = pb.RecallRequest(skill="stig", fingerprint=fingerprint, item_ids=items)
    return {c.item_id: list(c.undone_by) for c in (await stub.Recall(request)).conflicts}


def undone(key: str, item: str, *others: str) -> pb.RecordRequest:
    conflict = pb.Conflict(item_id=item, undone_by=others)
    return pb.RecordRequest(idempotency_key=key, run_id="run-1", skill="stig", fingerprint=EL9, conflicts=[conflict])


async def test_what_undid_an_item_is_told_to_the_next_run_on_such_a_machine_only(stub: Stub) -> None:
    for request in (undone("k1", "a", "c", "b"), undone("k1", "a", "c", "b"), undone("k2", "a", "c")):
        await stub.Record(request)
    assert await conflicts(stub, "a", "x") == {"a": ["b", "c"]}
    assert await conflicts(stub, "x") == {}
    assert await conflicts(stub, "a", fingerprint=EL9 + " ") == {}


@pytest.mark.parametrize("others", [(), ("a",), ("b", "not an id!")])
async def test_a_conflict_that_names_nobody_itself_or_no_item_is_refused(stub: Stub, others: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="undone_by"):
        await stub.Record(undone("k", "a", *others))
