import asyncio

import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

from tests.integration.checkpoint.conftest import (
    FolderDriver,
    Stub,
    acquire,
    effect_request,
    release,
    restore_request,
    snapshot_request,
)


async def finish(stub: Stub, state: str, exit_code: int = 0, key: str = "e1") -> pb.Effect:
    answer = await stub.FinishEffect(pb.FinishEffectRequest(idempotency_key=key, state=state, exit_code=exit_code))
    return answer.effect


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
        await finish(stub, "failed")
    assert refused.value.field == "state"
    assert (await finish(stub, "undone")).state == "undone"


async def test_an_end_of_nothing_or_of_no_known_kind_is_refused(stub: Stub) -> None:
    with pytest.raises(NotFound):
        await finish(stub, "applied")
    for state in ("done", "", "intended"):
        with pytest.raises(InvalidArgument) as refused:
            await finish(stub, state)
        assert refused.value.field == "state"


async def test_what_happened_is_recorded_even_after_the_lease_was_given_back(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token))
    await release(stub, "run-1", token)
    assert (await finish(stub, "applied")).state == "applied"


async def test_an_intended_effect_is_taken_over_with_the_newer_token(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.BeginEffect(effect_request("run-1", token))
    await release(stub, "run-1", token)
    newer = await acquire(stub, "run-1")
    assert newer > token
    again = await stub.BeginEffect(effect_request("run-1", newer))
    assert again.begun_before
    assert again.effect.fencing_token == newer


async def test_a_restore_marks_what_it_took_back_and_nothing_else(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    await stub.BeginEffect(effect_request("run-1", token, key="kept"))
    await finish(stub, "applied", key="kept")
    await stub.Snapshot(snapshot_request("run-1", token, 1))
    for key, state in (("ran", "applied"), ("broke", "failed")):
        await stub.BeginEffect(effect_request("run-1", token, key=key))
        await finish(stub, state, key=key)
    # Begun, end unknown: after the restore it has not happened, and may be applied under the same key.
    await stub.BeginEffect(effect_request("run-1", token, key="open"))
    (driver.machine("m1") / "a").write_text("changed")
    assert (await stub.Restore(restore_request("run-1", token, 1, key="k"))).restored
    assert await states(stub) == {"kept": "applied", "ran": "undone", "broke": "undone", "open": "intended"}
    assert (await stub.BeginEffect(effect_request("run-1", token, key="open"))).begun_before
    with pytest.raises(FailedPrecondition, match="undone") as late:
        await stub.BeginEffect(effect_request("run-1", token, key="ran"))
    assert late.value.field == "idempotency_key"


async def test_an_effect_without_a_name_is_refused(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    for field in ("item_id", "action_hash", "run_id"):
        request = effect_request("run-1", token)
        setattr(request.effect, field, "")
        with pytest.raises(InvalidArgument) as refused:
            await stub.BeginEffect(request)
        assert refused.value.field == f"effect.{field}"
