import asyncio
from collections.abc import Awaitable

import asyncpg
import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_runtime.errors import InvalidArgument, Leased, NotFound, StaleToken
from google.protobuf.duration_pb2 import Duration

from tests.integration.checkpoint.conftest import (
    Serve,
    Stub,
    acquire,
    effect_request,
    lab_target,
    release,
    restore_request,
    snapshot_request,
)


async def lapse(dsn: str) -> None:
    """Lets every lease run out: as if its time had passed."""
    conn = await asyncpg.connect(dsn)
    await conn.execute(
        "UPDATE checkpoint.leases SET expires_at = clock_timestamp() - interval '1 s' WHERE run_id <> ''"
    )
    await conn.close()


async def renew(stub: Stub, run_id: str, token: int) -> pb.RenewLeaseResponse:
    return await stub.RenewLease(
        pb.RenewLeaseRequest(
            idempotency_key="n", target="lab", run_id=run_id, fencing_token=token, ttl=Duration(seconds=600)
        )
    )


async def test_a_second_run_is_refused_and_told_who_holds_the_target(stub: Stub) -> None:
    await acquire(stub, "run-1")
    with pytest.raises(Leased) as refused:
        await acquire(stub, "run-2")
    assert refused.value.details["run_id"] == "run-1"
    assert refused.value.details["target"] == "lab"
    assert (await stub.GetTarget(pb.GetTargetRequest(name="lab"))).target.leased_by == "run-1"


async def test_the_same_run_gets_the_same_token_and_more_time(stub: Stub) -> None:
    token = await acquire(stub, "run-1", ttl=10)
    again = await stub.AcquireLease(
        pb.AcquireLeaseRequest(idempotency_key="k2", target="lab", run_id="run-1", ttl=Duration(seconds=600))
    )
    assert again.fencing_token == token
    first = await stub.AcquireLease(
        pb.AcquireLeaseRequest(idempotency_key="k3", target="lab", run_id="run-1", ttl=Duration(seconds=5))
    )
    # A shorter wish never shortens what was granted.
    assert first.expires_at.ToDatetime() >= again.expires_at.ToDatetime()


async def test_an_expired_lease_goes_to_the_next_run_with_a_higher_token(stub: Stub, postgres_dsn: str) -> None:
    old = await acquire(stub, "run-1")
    await lapse(postgres_dsn)
    new = await acquire(stub, "run-2")
    assert new > old
    calls: list[Awaitable[object]] = [
        renew(stub, "run-1", old),
        release(stub, "run-1", old),
        stub.Snapshot(snapshot_request("run-1", old, 0)),
        stub.BeginEffect(effect_request("run-1", old)),
    ]
    for call in calls:
        with pytest.raises(StaleToken) as refused:
            await call
        assert refused.value.field == "fencing_token"


async def test_a_run_whose_lease_ran_out_may_change_nothing_until_it_renews(stub: Stub, postgres_dsn: str) -> None:
    token = await acquire(stub, "run-1")
    await lapse(postgres_dsn)
    with pytest.raises(StaleToken, match="nobody holds it"):
        await stub.BeginEffect(effect_request("run-1", token))
    await renew(stub, "run-1", token)
    assert (await stub.BeginEffect(effect_request("run-1", token))).effect.state == "intended"


async def test_releasing_twice_is_no_error_also_when_the_next_run_is_there(stub: Stub) -> None:
    token = await acquire(stub, "run-1")
    await release(stub, "run-1", token, key="r1")
    await release(stub, "run-1", token, key="r2")
    await acquire(stub, "run-2")
    # The retry of a call whose answer was lost.
    await release(stub, "run-1", token, key="r1")
    assert (await stub.GetTarget(pb.GetTargetRequest(name="lab"))).target.leased_by == "run-2"


async def test_a_run_id_that_is_none_is_refused(stub: Stub) -> None:
    for run_id in ("", "run 1", "../run", "r" * 101):
        with pytest.raises(InvalidArgument) as refused:
            await acquire(stub, run_id)
        assert refused.value.field == "run_id"


async def test_a_lease_time_out_of_bounds_is_refused(stub: Stub) -> None:
    for ttl in (0, -5, 100_000):
        with pytest.raises(InvalidArgument) as refused:
            await acquire(stub, "run-1", ttl=ttl)
        assert refused.value.field == "ttl"


async def test_an_unknown_target_cannot_be_leased(stub: Stub) -> None:
    with pytest.raises(NotFound) as refused:
        await acquire(stub, "run-1", target="lab9")
    assert refused.value.field == "target"


async def test_a_call_without_an_idempotency_key_is_refused(stub: Stub) -> None:
    calls: list[Awaitable[object]] = [
        stub.AcquireLease(pb.AcquireLeaseRequest(target="lab", run_id="r", ttl=Duration(seconds=5))),
        stub.RenewLease(pb.RenewLeaseRequest(target="lab", run_id="r", ttl=Duration(seconds=5))),
        stub.ReleaseLease(pb.ReleaseLeaseRequest(target="lab", run_id="r")),
        stub.Snapshot(pb.SnapshotRequest(target="lab", run_id="r")),
        stub.Restore(pb.RestoreRequest(target="lab", run_id="r")),
        stub.BeginEffect(pb.BeginEffectRequest(target="lab", effect=pb.Effect(run_id="r"))),
        stub.FinishEffect(pb.FinishEffectRequest(state="applied")),
        stub.AddTarget(pb.AddTargetRequest(target=lab_target())),
        stub.RemoveTarget(pb.RemoveTargetRequest(name="lab")),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as refused:
            await call
        assert refused.value.field == "idempotency_key"


async def test_of_many_runs_at_once_on_two_replicas_exactly_one_gets_the_target(serve: Serve) -> None:
    async with serve() as one, serve() as two:
        await one.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        answers = await asyncio.gather(
            *(acquire(stub, f"run-{n}") for n in range(10) for stub in (one, two)), return_exceptions=True
        )
    won = {n // 2 for n, answer in enumerate(answers) if answer == 1}
    assert len(won) == 1
    assert all(isinstance(a, Leased) for a in answers if a != 1)


async def test_a_stale_run_cannot_restore(stub: Stub, postgres_dsn: str) -> None:
    token = await acquire(stub, "run-1")
    await stub.Snapshot(snapshot_request("run-1", token, 0))
    await lapse(postgres_dsn)
    await acquire(stub, "run-2")
    with pytest.raises(StaleToken):
        await stub.Restore(restore_request("run-1", token, 0, key="k", force=True))
