"""What a doer makes of a failure, on virtual time: another delivery where one comes in time, else the run hears now."""

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal_contracts.canonical import canonical_json
from anneal_contracts.facts import Health, TargetAccess
from anneal_contracts.work import CheckHealth, Failed, HealthChecked, Result
from anneal_runtime.bus import Message
from anneal_runtime.errors import AnnealError, InvalidArgument, NotFound, Unavailable, Unreadable
from anneal_skillkit.bench import Workbench
from anneal_skillkit.loader import SkillSet
from pydantic import TypeAdapter

pytestmark = pytest.mark.looptime(start=0)

RESULT: TypeAdapter[Result] = TypeAdapter(Result)
WELL = Health(reachable=True, privileged=True)


class LoopClock:
    """Wall time that is the loop's own, so that it moves as fast as the test's."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Supervisor:
    """Takes results and parked messages in. away: errors of its next answers."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.at: list[float] = []
        self.parked: list[qu.ParkMessageRequest] = []
        self.away: list[AnnealError] = []

    async def ReportResult(self, request: sup.ReportResultRequest, timeout: float = 0.0) -> sup.ReportResultResponse:
        self._answer()
        self.results.append(RESULT.validate_json(request.result_json))
        return sup.ReportResultResponse(accepted=True)

    async def ParkMessage(self, request: qu.ParkMessageRequest) -> qu.ParkMessageResponse:
        self._answer()
        self.parked.append(request)
        return qu.ParkMessageResponse(id="pk-1", told=True)

    def _answer(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        if self.away:
            raise self.away.pop(0)


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


async def bench_of(supervisor: Supervisor, tmp_path: Path) -> Workbench:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nowhere:
        skills = SkillSet(skills={}, broken={})
        bench = Workbench(skills=skills, cache=tmp_path, supervisor=nowhere, checkpoint=nowhere, clock=LoopClock())
    bench.supervisor = supervisor  # type: ignore[assignment]
    bench._queues = supervisor  # type: ignore[assignment]
    return bench


def message(*, deadline: float = 300.0, retry_in_s: float | None = 10.0, poison_in_s: float | None = 10.0) -> Message:
    command = CheckHealth(command_id="c", run_id="run-1", skill="s", target="t", deadline=deadline)
    return Message(
        data=canonical_json(command),
        subject="anneal.work.evaluation.check_health",
        msg_id="run-1/c",
        retry_in_s=retry_in_s,
        poison_retry_in_s=poison_in_s,
    )


def failing(error: Exception) -> dict[str, Any]:
    async def handler(command: CheckHealth) -> HealthChecked:
        raise error

    return {"check_health": handler}


async def healthy(command: CheckHealth) -> HealthChecked:
    return HealthChecked(command_id=command.command_id, health=WELL)


async def test_what_is_worth_retrying_is_left_to_the_next_delivery(supervisor: Supervisor, tmp_path: Path) -> None:
    bench = await bench_of(supervisor, tmp_path)
    with pytest.raises(Unavailable):
        await bench.handle(message(), failing(Unavailable("away")))
    assert (supervisor.results, supervisor.parked) == ([], [])


async def test_a_delivery_that_would_come_too_late_is_not_waited_for(supervisor: Supervisor, tmp_path: Path) -> None:
    bench = await bench_of(supervisor, tmp_path)
    await bench.handle(message(deadline=10.0), failing(Unavailable("away")))
    (result,) = supervisor.results
    assert isinstance(result, Failed)
    assert (result.reason, result.retryable) == ("unavailable", True), "the engine may give it out anew"
    assert supervisor.at == [0]


async def test_after_the_last_delivery_the_failure_is_final(supervisor: Supervisor, tmp_path: Path) -> None:
    bench = await bench_of(supervisor, tmp_path)
    await bench.handle(message(retry_in_s=None), failing(Unavailable("away")))
    (result,) = supervisor.results
    assert isinstance(result, Failed)
    assert not result.retryable


async def test_a_refusal_is_the_result_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    bench = await bench_of(supervisor, tmp_path)
    await bench.handle(message(), failing(InvalidArgument("no such rule", field="item_id")))
    (result,) = supervisor.results
    assert isinstance(result, Failed)
    assert (result.reason, result.field, result.retryable) == ("invalid_argument", "item_id", False)


async def test_a_crash_is_left_to_the_next_delivery_while_one_comes_in_time(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench = await bench_of(supervisor, tmp_path)
    with pytest.raises(ZeroDivisionError):
        await bench.handle(message(), failing(ZeroDivisionError()))
    assert supervisor.parked == []
    await bench.handle(message(deadline=9.0), failing(ZeroDivisionError()))
    (parked,) = supervisor.parked
    assert (parked.reason, parked.idempotency_key, parked.msg_id) == ("crashed", "run-1/c", "run-1/c")
    assert supervisor.results == []


async def test_a_message_that_is_no_command_names_what_is_wrong_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    bench = await bench_of(supervisor, tmp_path)
    for data, words in ((b"\xff{", "Invalid JSON"), (b'{"kind": "check_health", "run_id": 5}', "command_id")):
        with pytest.raises(Unreadable, match=words):
            await bench.handle(Message(data=data, subject="s", msg_id="m"), {})


async def test_a_command_whose_deadline_has_passed_is_dropped(supervisor: Supervisor, tmp_path: Path) -> None:
    bench = await bench_of(supervisor, tmp_path)
    await asyncio.sleep(5)
    await bench.handle(message(deadline=4.0), failing(ZeroDivisionError()))
    assert supervisor.at == []


async def test_a_result_is_held_until_the_supervisor_is_back_and_not_computed_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench = await bench_of(supervisor, tmp_path)
    supervisor.away = [Unavailable("restarting")] * 12
    await bench.handle(message(), {"check_health": healthy})
    assert len(supervisor.results) == 1
    assert supervisor.at[-1] == pytest.approx(0.1 + 0.3 + 0.5 + 9 * 1)


async def test_a_result_that_nobody_takes_is_held_no_longer_than_it_is_waited_for(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench = await bench_of(supervisor, tmp_path)
    supervisor.away = [Unavailable("gone")] * 99
    await bench.handle(message(deadline=60.0), {"check_health": healthy})
    assert supervisor.results == []
    assert 50 < supervisor.at[-1] <= 60


async def test_a_result_that_the_supervisor_refuses_is_parked_rather_than_computed_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench = await bench_of(supervisor, tmp_path)
    supervisor.away = [NotFound("no run run-1", field="run_id")]
    await bench.handle(message(), {"check_health": healthy})
    assert [p.reason for p in supervisor.parked] == ["not_found"]


async def test_a_supervisor_that_is_away_for_long_leaves_a_given_up_message_with_the_bus(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench = await bench_of(supervisor, tmp_path)
    supervisor.away = [Unavailable("gone")] * 99
    with pytest.raises(Unavailable):
        await bench.park(message(), Unreadable("x"))
    assert 10 < supervisor.at[-1] <= 20


class Targets:
    """Says where a target is, and how often it was asked."""

    def __init__(self) -> None:
        self.host = "10.0.0.1"
        self.asked = 0

    async def GetTarget(self, request: cp.GetTargetRequest) -> cp.GetTargetResponse:
        self.asked += 1
        return cp.GetTargetResponse(target=cp.Target(name=request.name, driver="nspawn", host=self.host, port=22))


class Opens:
    """Opens sessions that are only an address."""

    async def get(self, access: TargetAccess) -> Any:
        return access

    async def drop(self, access: TargetAccess) -> None: ...

    async def close(self) -> None: ...


def looking(run_id: str = "run-1", token: int = 1) -> CheckHealth:
    return CheckHealth(
        command_id="c", run_id=run_id, skill="s", profile="p", target="t", fencing_token=token, deadline=9
    )


async def test_a_target_that_was_reached_under_this_lease_is_taken_to_be_where_it_was(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench, targets = await bench_of(supervisor, tmp_path), Targets()
    bench.checkpoint, bench._sessions = targets, Opens()  # type: ignore[assignment]
    await bench.context(looking())
    targets.host = "10.0.0.2"
    assert cast(TargetAccess, (await bench.context(looking(), known=True)).session).host == "10.0.0.1"
    assert targets.asked == 1
    assert await bench.moved(looking())
    assert cast(TargetAccess, (await bench.context(looking(), known=True)).session).host == "10.0.0.2"
    assert not await bench.moved(looking())


@pytest.mark.parametrize("other", [looking(run_id="run-2"), looking(token=2)])
async def test_another_run_or_lease_asks_where_the_target_is(
    supervisor: Supervisor, tmp_path: Path, other: CheckHealth
) -> None:
    bench, targets = await bench_of(supervisor, tmp_path), Targets()
    bench.checkpoint, bench._sessions = targets, Opens()  # type: ignore[assignment]
    await bench.context(looking())
    await bench.context(other, known=True)
    assert targets.asked == 2


async def test_what_goes_on_beside_a_result_is_waited_for_and_its_failure_is_that_of_the_message(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    bench = await bench_of(supervisor, tmp_path)

    async def slow() -> None:
        await asyncio.sleep(5)
        raise Unavailable("the ledger is away")

    async def handler(command: CheckHealth) -> HealthChecked:
        bench.beside(command, slow())
        return await healthy(command)

    with pytest.raises(Unavailable):
        await bench.handle(message(), {"check_health": handler})
    assert supervisor.at == [0], "the result does not wait"
    assert asyncio.get_running_loop().time() == 5, "the acknowledgement does"
