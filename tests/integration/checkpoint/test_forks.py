"""Generations of one run from which another goes on."""

import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_runtime.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from anneal_runtime.testing import eventually

from tests.integration.checkpoint.conftest import (
    FolderDriver,
    Serve,
    Stub,
    acquire,
    effect_request,
    lab_target,
    release,
    restore_request,
    snapshot_request,
)
from tests.integration.checkpoint.test_snapshots import ORIGINAL, generations, read, write


def from_run(parent: str, run_id: str, token: int, generation: int, *, key: str = "fork") -> pb.RestoreRequest:
    request = restore_request(run_id, token, generation, key=key, force=True)
    request.from_run = parent
    return request


def first_of_fork(run_id: str, token: int, generation: int) -> pb.SnapshotRequest:
    request = snapshot_request(run_id, token, generation)
    request.first = True
    return request


async def with_three_generations(stub: Stub, driver: FolderDriver, run_id: str = "run-1") -> None:
    token = await acquire(stub, run_id)
    for generation in range(3):
        write(driver, "a", f"fix {generation}")
        await stub.Snapshot(snapshot_request(run_id, token, generation))
    await stub.BeginEffect(effect_request(run_id, token, key="last"))
    await stub.FinishEffect(pb.FinishEffectRequest(idempotency_key="last", state="applied"))
    write(driver, "a", "and one more")
    await release(stub, run_id, token)


async def test_a_fork_goes_on_from_a_generation_of_another_run_and_has_its_own_from_there(
    stub: Stub, driver: FolderDriver
) -> None:
    await with_three_generations(stub, driver)
    token = await acquire(stub, "fork-1")
    assert (await stub.Restore(from_run("run-1", "fork-1", token, 1))).restored
    assert read(driver)["a"] == "fix 1"
    await stub.Snapshot(first_of_fork("fork-1", token, 1))
    write(driver, "a", "another fix 2")
    await stub.Snapshot(snapshot_request("fork-1", token, 2))
    write(driver, "a", "broken")
    await stub.Restore(restore_request("fork-1", token, 2, key="back"))
    assert read(driver)["a"] == "another fix 2"
    assert await generations(stub, "fork-1") == [1, 2]
    assert await generations(stub, "run-1") == [0, 1, 2]


async def test_what_the_other_run_did_since_is_taken_back_in_the_ledger_as_well(
    stub: Stub, driver: FolderDriver
) -> None:
    await with_three_generations(stub, driver)
    token = await acquire(stub, "fork-1")
    await stub.Restore(from_run("run-1", "fork-1", token, 2))
    (effect,) = (await stub.ListEffects(pb.ListEffectsRequest(run_id="run-1"))).effects
    assert (effect.state, effect.detail) == ("reverted", "by a restore")


async def test_a_fork_whose_restore_was_cut_off_by_a_death_is_put_back_at_the_next_start(
    serve: Serve, driver: FolderDriver
) -> None:
    async with serve() as stub:
        await stub.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        await with_three_generations(stub, driver)
        token = await acquire(stub, "fork-1")
        write(driver, "b", "broken")
        driver.break_restore = True
        with pytest.raises(Unavailable):
            await stub.Restore(from_run("run-1", "fork-1", token, 1))
    async with serve() as stub:
        await eventually(lambda: read(driver) == {**ORIGINAL, "a": "fix 1"})
        assert (await stub.Restore(from_run("run-1", "fork-1", token, 1))).restored


async def test_a_generation_that_is_gone_and_a_run_that_never_was_are_named(stub: Stub, driver: FolderDriver) -> None:
    await with_three_generations(stub, driver)
    token = await acquire(stub, "fork-1")
    with pytest.raises(NotFound, match="run run-1 has no saved generation 7"):
        await stub.Restore(from_run("run-1", "fork-1", token, 7))
    with pytest.raises(InvalidArgument) as nonsense:
        await stub.Restore(from_run("no run/at all", "fork-1", token, 1))
    assert nonsense.value.field == "from_run"
    assert await generations(stub, "fork-1") == []


async def test_one_key_is_not_for_the_own_generation_and_for_that_of_another_run(
    stub: Stub, driver: FolderDriver
) -> None:
    await with_three_generations(stub, driver)
    token = await acquire(stub, "fork-1")
    await stub.Restore(from_run("run-1", "fork-1", token, 1))
    with pytest.raises(AlreadyExists):
        await stub.Restore(restore_request("fork-1", token, 1, key="fork", force=True))
