import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_checkpoint.model import DriverKind
from anneal_checkpoint.operations import Operations
from anneal_checkpoint.orders import Order
from anneal_checkpoint.store_postgres import PostgresStore, open_database
from anneal_runtime import faults
from anneal_runtime.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from anneal_runtime.testing import eventually

from tests.integration.checkpoint.conftest import (
    HOST_KEY,
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
from tests.integration.checkpoint.test_leases import lapse


def write(driver: FolderDriver, file: str, text: str) -> None:
    (driver.machine("m1") / file).write_text(text)


def read(driver: FolderDriver) -> dict[str, str]:
    return {p.name: p.read_text() for p in driver.machine("m1").iterdir()}


ORIGINAL = {"a": "original", "b": "original", "c": "original"}


async def test_a_restore_brings_back_what_was_there_and_names_what_had_changed(
    stub: Stub, driver: FolderDriver
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "b", "broken")
    write(driver, "new", "litter")
    answer = await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert answer.restored
    assert list(answer.changed_paths) == ["b", "new"]
    assert read(driver) == ORIGINAL


async def test_where_nothing_has_changed_the_machine_runs_on(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "journal", "a login happened")
    answer = await stub.Restore(restore_request("run-1", token, 0, key="k", volatile=["journal"]))
    assert not answer.restored
    assert not any(c.startswith("restore") for c in driver.calls)


async def test_force_restores_where_no_file_differs(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    assert (await stub.Restore(restore_request("run-1", token, 0, key="k", force=True))).restored
    assert any(c.startswith("restore") for c in driver.calls)


async def test_each_generation_is_the_state_of_its_moment(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    for generation in range(3):
        write(driver, "a", f"fix {generation}")
        await stub.Snapshot(snapshot_request("run-1", token, generation))
    await stub.Restore(restore_request("run-1", token, 1, key="k1"))
    assert read(driver)["a"] == "fix 1"
    await stub.Restore(restore_request("run-1", token, 2, key="k2"))
    assert read(driver)["a"] == "fix 2"


async def test_a_repeated_snapshot_answers_from_the_record_and_saves_nothing_again(
    stub: Stub, driver: FolderDriver
) -> None:
    token = await acquire(stub, "run-1")
    first = await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "a", "changed since")
    second = await stub.Snapshot(snapshot_request("run-1", token, 0))
    assert second == first
    await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert read(driver) == ORIGINAL


async def test_a_repeated_restore_answers_from_the_record_and_restores_nothing_again(
    stub: Stub, driver: FolderDriver
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "a", "broken")
    first = await stub.Restore(restore_request("run-1", token, 0, key="k"))
    write(driver, "a", "the next attempt")
    assert await stub.Restore(restore_request("run-1", token, 0, key="k")) == first
    assert read(driver)["a"] == "the next attempt"


async def test_a_generation_is_never_overwritten(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    with pytest.raises(AlreadyExists) as refused:
        await stub.Snapshot(snapshot_request("run-1", token, 0, key="other"))
    assert refused.value.field == "generation"


async def test_a_key_of_another_operation_is_refused(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0, key="k"))
    with pytest.raises(AlreadyExists) as refused:
        await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert refused.value.field == "idempotency_key"


async def test_a_generation_that_is_not_there_is_named(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    with pytest.raises(FailedPrecondition, match="no earlier generation") as early:
        await stub.Snapshot(snapshot_request("run-1", token, 1))
    with pytest.raises(NotFound) as missing:
        await stub.Restore(restore_request("run-1", token, 0, key="k"))
    with pytest.raises(InvalidArgument) as negative:
        await stub.Snapshot(snapshot_request("run-1", token, -1))
    assert {e.value.field for e in (early, missing, negative)} == {"generation"}


async def test_a_long_list_of_changes_is_cut(serve: Serve, driver: FolderDriver) -> None:
    async with serve(max_changed_paths=5) as stub:
        await stub.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        token = await acquire(stub, "run-1")
        await stub.Snapshot(snapshot_request("run-1", token, 0))
        for n in range(10):
            write(driver, f"litter{n}", "x")
        answer = await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert len(answer.changed_paths) == 5
    assert read(driver) == ORIGINAL


async def generations(stub: Stub, run_id: str) -> list[int]:
    answer = await stub.ListGenerations(pb.ListGenerationsRequest(target="lab", run_id=run_id))
    assert all(g.taken_at.seconds for g in answer.generations)
    return [g.generation for g in answer.generations]


async def test_of_a_run_the_first_the_last_and_milestones_between_them_are_kept_also_after_it(
    stub: Stub, driver: FolderDriver
) -> None:
    token = await acquire(stub, "run-1")
    for generation in range(14):
        await stub.Snapshot(snapshot_request("run-1", token, generation))
    assert await generations(stub, "run-1") == [0, 4, 8, 11, 12, 13]
    # 10 is no longer anybody's, though its files wait to be made into the next one.
    assert "10" in driver.states("m1")
    with pytest.raises(NotFound):
        await stub.Restore(restore_request("run-1", token, 10, key="k"))
    await release(stub, "run-1", token)
    await eventually(lambda: {int(n) for n in driver.states("m1")} == {0, 4, 8, 11, 12, 13})


async def test_the_states_of_the_last_two_runs_outlive_their_leases(stub: Stub, driver: FolderDriver) -> None:
    for run in ("run-1", "run-2", "run-3"):
        token = await acquire(stub, run)
        await stub.Snapshot(snapshot_request(run, token, 0))
        await stub.Snapshot(snapshot_request(run, token, 1))
        await release(stub, run, token)
    await eventually(lambda: driver.states("m1") == ["0", "0", "1", "1"])
    assert [await generations(stub, f"run-{n}") for n in (1, 2, 3)] == [[], [0, 1], [0, 1]]
    token = await acquire(stub, "run-2")
    write(driver, "a", "run 3 was a mistake")
    assert (await stub.Restore(restore_request("run-2", token, 0, key="k"))).restored
    assert read(driver) == ORIGINAL


async def test_a_removed_target_leaves_no_saved_states(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    await release(stub, "run-1", token)
    await stub.RemoveTarget(pb.RemoveTargetRequest(idempotency_key="rm", name="lab"))
    await eventually(lambda: driver.states("m1") == [])


async def test_what_an_earlier_process_did_not_remove_is_removed_after_the_start(
    serve: Serve, driver: FolderDriver, postgres_dsn: str
) -> None:
    async with serve() as stub:
        await stub.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        token = await acquire(stub, "run-1")
        await stub.Snapshot(snapshot_request("run-1", token, 0))
    conn = await asyncpg.connect(postgres_dsn)
    await conn.execute("UPDATE checkpoint.snapshots SET state = 'dropping'")
    await conn.close()
    assert driver.states("m1") == ["0"]
    async with serve():
        await eventually(lambda: driver.states("m1") == [])


async def test_a_plain_host_refuses_snapshots_in_plain_words(stub: Stub, tmp_path: Path) -> None:
    key = tmp_path / "key"
    await asyncio.to_thread(key.write_text, "-----BEGIN OPENSSH PRIVATE KEY-----\n")
    await asyncio.to_thread(key.chmod, 0o600)
    web = pb.Target(name="web1", driver="ssh", host="web1", user="ops", key_path=str(key), host_key=HOST_KEY)
    await stub.AddTarget(pb.AddTargetRequest(idempotency_key="web", target=web))
    token = await acquire(stub, "run-1", target="web1")
    request = snapshot_request("run-1", token, 0)
    request.target = "web1"
    with pytest.raises(FailedPrecondition, match="no snapshots: only fixes with a scripted undo"):
        await stub.Snapshot(request)
    back = restore_request("run-1", token, 0, key="k")
    back.target = "web1"
    with pytest.raises(FailedPrecondition, match="no snapshots"):
        await stub.Restore(back)


# --- what happens when something dies ------------------------------------------------------------------------------


async def test_a_restore_goes_on_when_its_caller_stops_waiting(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "b", "broken")
    driver.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await stub.Restore(restore_request("run-1", token, 0, key="k"), timeout=0.3)
    driver.gate.set()
    again = await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert again.restored
    assert list(again.changed_paths) == ["b"]
    assert sum(c.startswith("restore") for c in driver.calls) == 1


async def test_nobody_takes_a_target_over_while_it_is_restored(
    stub: Stub, driver: FolderDriver, postgres_dsn: str
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    driver.gate.clear()
    under_way = asyncio.ensure_future(stub.Restore(restore_request("run-1", token, 0, key="k", force=True)))
    await eventually(lambda: any(c.startswith("restore") for c in driver.calls))
    run_out = asyncio.create_task(lapse(postgres_dsn))
    taker = asyncio.create_task(acquire(stub, "run-2"))
    done, _ = await asyncio.wait({run_out, taker}, timeout=0.3)
    assert not done
    driver.gate.set()
    assert (await under_way).restored
    await run_out
    # Whoever came first of the two, the taker had to wait for the end of the restore.
    await asyncio.wait({taker})
    taker.exception()


async def test_a_clean_stop_waits_for_a_restore(serve: Serve, driver: FolderDriver) -> None:
    async with serve(shutdown_grace_s=0.05) as stub:
        await stub.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        token = await acquire(stub, "run-1")
        await stub.Snapshot(snapshot_request("run-1", token, 0))
        write(driver, "b", "broken")
        driver.gate.clear()
        under_way = asyncio.ensure_future(stub.Restore(restore_request("run-1", token, 0, key="k")))
        await eventually(lambda: any(c.startswith("restore") for c in driver.calls))
        asyncio.get_running_loop().call_later(0.3, driver.gate.set)
    await asyncio.gather(under_way, return_exceptions=True)
    assert read(driver) == ORIGINAL
    async with serve() as stub:
        assert (await stub.Restore(restore_request("run-1", token, 0, key="k"))).restored


async def test_a_half_done_restore_is_never_taken_for_an_unchanged_machine(stub: Stub, driver: FolderDriver) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    for file in ("a", "b"):
        write(driver, file, "broken")
    driver.break_restore = True
    with pytest.raises(Unavailable):
        await stub.Restore(restore_request("run-1", token, 0, key="k"))
    with pytest.raises(FailedPrecondition, match="in the middle of a restore"):
        await stub.BeginEffect(effect_request("run-1", token))
    answer = await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert answer.restored
    # Recorded before the first try, when the machine still showed what had been done to it.
    assert list(answer.changed_paths) == ["a", "b"]
    assert read(driver) == ORIGINAL
    await stub.BeginEffect(effect_request("run-1", token))


async def test_the_next_run_completes_a_restore_that_was_cut_off_before_it_saves_the_machine(
    stub: Stub, driver: FolderDriver, postgres_dsn: str
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    for file in ("a", "b"):
        write(driver, file, "broken")
    driver.break_restore = True
    with pytest.raises(Unavailable):
        await stub.Restore(restore_request("run-1", token, 0, key="k"))
    await lapse(postgres_dsn)
    second = await acquire(stub, "run-2")
    await stub.Snapshot(snapshot_request("run-2", second, 0))
    assert read(driver) == ORIGINAL


async def test_a_state_that_a_cut_off_restore_needs_is_not_dropped(serve: Serve, driver: FolderDriver) -> None:
    async with serve(keep_runs=0) as stub:
        await stub.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        token = await acquire(stub, "run-1")
        for generation in range(3):
            await stub.Snapshot(snapshot_request("run-1", token, generation))
        write(driver, "b", "broken")
        driver.break_restore = True
        with pytest.raises(Unavailable):
            await stub.Restore(restore_request("run-1", token, 1, key="k"))
        await release(stub, "run-1", token)
        await eventually(lambda: driver.states("m1") == ["1"])
        second = await acquire(stub, "run-2")
        await stub.Snapshot(snapshot_request("run-2", second, 0))
        assert read(driver) == ORIGINAL


async def test_closing_returns_only_when_nothing_is_under_way(
    stub: Stub, driver: FolderDriver, postgres_dsn: str
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    driver.gate.clear()
    database = await open_database(postgres_dsn, max_size=4)
    operations = Operations(
        PostgresStore(database),
        {DriverKind.NSPAWN: driver},
        keep=3,
        milestones=4,
        max_paths=10,
        at_once=1,
    )
    order = Order(key="k", target="lab", run_id="run-1", token=token, generation=0)
    caller = asyncio.create_task(operations.restore(order, force=True, volatile=()))
    await eventually(lambda: any(c.startswith("restore") for c in driver.calls))
    caller.cancel()
    closing = asyncio.create_task(operations.close())
    done, _ = await asyncio.wait({closing}, timeout=0.1)
    driver.gate.set()
    assert not done
    await closing
    assert (await operations.restore(order, force=True, volatile=())).restored
    assert sum(c.startswith("restore") for c in driver.calls) == 1
    await database.close()


@pytest.mark.parametrize(
    "point", ["checkpoint.after_intent", "checkpoint.before_snapshot", "checkpoint.after_snapshot"]
)
async def test_a_snapshot_that_failed_anywhere_is_carried_out_by_its_retry(
    stub: Stub, driver: FolderDriver, point: str
) -> None:
    token = await acquire(stub, "run-1")
    faults.arm(f"{point}=raise")
    try:
        with pytest.raises(Internal):
            await stub.Snapshot(snapshot_request("run-1", token, 0))
    finally:
        faults.arm("")
    with pytest.raises(NotFound):
        await stub.Restore(restore_request("run-1", token, 0, key="early"))
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "a", "broken")
    assert (await stub.Restore(restore_request("run-1", token, 0, key="k"))).restored
    assert read(driver) == ORIGINAL


@pytest.mark.parametrize("point", ["checkpoint.after_intent", "checkpoint.before_restore", "checkpoint.after_restore"])
async def test_a_restore_that_failed_anywhere_is_carried_out_by_its_retry(
    stub: Stub, driver: FolderDriver, point: str
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "a", "broken")
    faults.arm(f"{point}=raise")
    try:
        with pytest.raises(Internal):
            await stub.Restore(restore_request("run-1", token, 0, key="k"))
    finally:
        faults.arm("")
    answer = await stub.Restore(restore_request("run-1", token, 0, key="k"))
    assert answer.restored
    assert list(answer.changed_paths) == ["a"]
    assert read(driver) == ORIGINAL


async def test_a_restore_that_a_dead_process_left_is_completed_when_a_service_starts(
    serve: Serve, driver: FolderDriver
) -> None:
    async with serve() as stub:
        await stub.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        token = await acquire(stub, "run-1")
        await stub.Snapshot(snapshot_request("run-1", token, 0))
        await stub.BeginEffect(effect_request("run-1", token))
        await stub.FinishEffect(pb.FinishEffectRequest(idempotency_key="e1", state="applied"))
        for file in ("a", "b"):
            write(driver, file, "broken")
        driver.break_restore = True
        with pytest.raises(Unavailable):
            await stub.Restore(restore_request("run-1", token, 0, key="k"))
    async with serve() as stub:
        await eventually(lambda: read(driver) == ORIGINAL)
        answer = await stub.Restore(restore_request("run-1", token, 0, key="k"))
        assert answer.restored
        assert list(answer.changed_paths) == ["a", "b"]
        effects = (await stub.ListEffects(pb.ListEffectsRequest(run_id="run-1"))).effects
        assert [e.state for e in effects] == ["reverted"]
    assert sum(c.startswith("restore") for c in driver.calls) == 2


async def test_a_machine_that_was_reset_after_a_cut_off_restore_is_a_new_beginning(
    stub: Stub, driver: FolderDriver
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    write(driver, "b", "broken")
    driver.break_restore = True
    with pytest.raises(Unavailable):
        await stub.Restore(restore_request("run-1", token, 0, key="k"))
    await release(stub, "run-1", token)
    shutil.rmtree(driver.base / "saved" / "m1")
    second = await acquire(stub, "run-2")
    await stub.Snapshot(snapshot_request("run-2", second, 0))
    await stub.BeginEffect(effect_request("run-2", second))


async def known_states(dsn: str) -> dict[int, str]:
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch("SELECT generation, state FROM checkpoint.snapshots")
    await conn.close()
    return {r["generation"]: r["state"] for r in rows}


async def test_each_generation_announces_the_next(stub: Stub, postgres_dsn: str) -> None:
    token = await acquire(stub, "run-1")
    for generation in (0, 1):
        await stub.Snapshot(snapshot_request("run-1", token, generation))
        assert (await known_states(postgres_dsn))[generation + 1] == "taking"
    with pytest.raises(NotFound):
        await stub.Restore(restore_request("run-1", token, 2, key="k"))


async def test_what_a_snapshot_that_was_cut_off_has_left_is_removed_after_the_run(
    stub: Stub, driver: FolderDriver, postgres_dsn: str
) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    faults.arm("checkpoint.after_snapshot=raise")
    with pytest.raises(Internal):
        await stub.Snapshot(snapshot_request("run-1", token, 1))
    faults.arm("")
    assert driver.states("m1") == ["0", "1"]
    assert (await known_states(postgres_dsn))[1] == "taking"
    await release(stub, "run-1", token)
    await eventually(lambda: driver.states("m1") == ["0"])


# --- forks ------------------------------------------------------------------------------------------------------------
