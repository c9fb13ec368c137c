"""What happens to a message that is given up, and to the run that waits for it."""

import asyncio
import shutil
import time
from typing import Any

import pytest
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal_contracts.facts import ScoreCounts
from anneal_contracts.work import Discovered, WorkClass, command_msg_id
from anneal_runtime import faults
from anneal_runtime.bus import WORK, Redelivery
from anneal_runtime.embedded import EmbeddedNats
from anneal_runtime.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable

from tests.integration.queues.conftest import SOON, MakePlace, Place, eventually
from tests.unit.core.world import WELL

DISCOVER = "anneal.work.evaluation.discover"


class Doer:
    """A discover handler that fails as told, then finds nothing."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, command: Any) -> Discovered:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return Discovered(
            command_id=command.command_id, items=(), score=ScoreCounts(), outcomes={}, fingerprint="f", health=WELL
        )


async def reason_of(place: Place) -> str:
    return (await place.run()).reason


async def test_a_handler_that_crashes_is_parked_after_three_deliveries_and_its_run_knows_at_once(
    make_place: MakePlace,
) -> None:
    place = await make_place("discover")
    doer = Doer(*[KeyError("house secret")] * 9)
    started = time.monotonic()
    await place.doer(WorkClass.EVALUATION, {"discover": doer})
    await eventually(place.has_parked)
    (parked,) = await place.parked()
    assert doer.calls == parked.deliveries == 3
    assert (parked.work_class, parked.subject, parked.reason) == ("evaluation", DISCOVER, "crashed")
    assert (parked.run_id, parked.command_id) == (place.run_id, place.command)
    assert "KeyError at test_parking.py" in parked.detail
    assert "secret" not in parked.detail

    async def told() -> bool:
        return f"given up after 3 deliveries, see: anneal queue show {parked.id}" in await reason_of(place)

    await eventually(told)
    assert "discover: crashed: KeyError" in await reason_of(place)
    assert time.monotonic() - started < 60, "its deadline is 300 s away"


async def test_a_message_that_cannot_be_read_is_parked_and_its_run_is_known_by_its_id(make_place: MakePlace) -> None:
    place = await make_place("discover")
    doer = Doer()
    doer.gate = asyncio.Event()
    await place.doer(WorkClass.EVALUATION, {"discover": doer}, lanes=2)
    await eventually(lambda: doer.calls)
    msg_id = command_msg_id(place.run_id, place.command) + "+garbage"
    await place.bus.publish(DISCOVER, b'{"kind": "discover", "speed": 5}', msg_id=msg_id)
    await eventually(place.has_parked)
    (parked,) = await place.parked()
    assert (parked.reason, parked.deliveries, parked.command_id) == ("unreadable", 3, place.command)

    async def told() -> bool:
        return "discover: unreadable: not a command of this version" in await reason_of(place)

    await eventually(told)


async def test_a_message_of_no_run_is_kept_with_its_content_and_may_be_sent_again(make_place: MakePlace) -> None:
    place = await make_place("discover")
    seen: list[bytes] = []

    async def handler(message: Any) -> None:
        seen.append(message.data)
        if len(seen) <= 3:
            raise ZeroDivisionError

    bench = place.bench()
    await place.bus.consume(
        stream=WORK.name, durable="post", subjects=["anneal.work.post.>"], handler=handler, concurrency=1,
        redelivery=Redelivery(waits_s=SOON), on_poison=bench.park,
    )  # fmt: skip
    await place.bus.publish("anneal.work.post.notify", b"a note", msg_id="note-1")
    await eventually(place.has_parked)
    (parked,) = await place.parked()
    shown = await place.queues.GetParked(qu.GetParkedRequest(id=parked.id))
    assert (shown.data, shown.may_retry, shown.message.run_id) == (b"a note", True, "")
    again = await place.queues.RetryParked(qu.RetryParkedRequest(idempotency_key="r1", id=parked.id))
    assert again.message.state == "retried"
    await eventually(lambda: seen == [b"a note"] * 4)
    assert await place.parked() == []


async def test_a_command_that_nobody_waits_for_is_not_sent_again_and_can_be_dropped(make_place: MakePlace) -> None:
    place = await make_place("discover")
    doer = Doer(*[KeyError("x")] * 9)
    await place.doer(WorkClass.EVALUATION, {"discover": doer})
    await eventually(place.has_parked)
    (parked,) = await place.parked()

    async def told() -> bool:
        return bool(await reason_of(place))

    await eventually(told)
    shown = await place.queues.GetParked(qu.GetParkedRequest(id=parked.id))
    assert not shown.may_retry
    with pytest.raises(FailedPrecondition, match="no longer waits for this command") as caught:
        await place.queues.RetryParked(qu.RetryParkedRequest(idempotency_key="r1", id=parked.id))
    assert caught.value.details["hint"] == f"anneal queue drop {parked.id}"
    for _ in range(2):  # the same key again gives the same answer
        dropped = await place.queues.DropParked(qu.DropParkedRequest(idempotency_key="d1", id=parked.id))
        assert dropped.message.state == "dropped"
    with pytest.raises(FailedPrecondition, match="dropped already"):
        await place.queues.DropParked(qu.DropParkedRequest(idempotency_key="d2", id=parked.id))
    with pytest.raises(AlreadyExists):
        await place.queues.RetryParked(qu.RetryParkedRequest(idempotency_key="d1", id=parked.id))
    assert await place.parked() == []
    assert doer.calls == 3


async def test_a_command_that_its_run_still_waits_for_is_sent_again_and_the_run_goes_on(make_place: MakePlace) -> None:
    place = await make_place("discover")
    faults.arm("supervisor.after_parked=raise")  # kept, and the run not told yet
    doer = Doer(*[KeyError("x")] * 3)
    await place.doer(WorkClass.EVALUATION, {"discover": doer})
    await eventually(place.has_parked)
    (parked,) = await place.parked()
    assert (await place.queues.GetParked(qu.GetParkedRequest(id=parked.id))).may_retry
    await place.queues.RetryParked(qu.RetryParkedRequest(idempotency_key="r1", id=parked.id))
    faults.arm("")

    async def went_on() -> bool:
        run = await place.run()
        return run.score.HasField("before") and not run.reason

    await eventually(went_on)


async def test_a_run_is_told_although_the_supervisor_died_between_keeping_and_telling(make_place: MakePlace) -> None:
    place = await make_place("discover")
    faults.arm("supervisor.after_parked=raise")
    doer = Doer(*[KeyError("x")] * 9)
    await place.doer(WorkClass.EVALUATION, {"discover": doer})
    await eventually(place.has_parked)
    assert await reason_of(place) == ""
    faults.arm("")

    async def told() -> bool:
        return "crashed" in await reason_of(place)

    await eventually(told)
    assert await place.has_parked(1)


async def test_what_is_parked_survives_the_loss_of_nats_and_is_listed_while_it_is_away(
    make_place: MakePlace, nats_server: EmbeddedNats
) -> None:
    place = await make_place("discover")
    await place.doer(WorkClass.EVALUATION, {"discover": Doer(*[KeyError("x")] * 9)})
    await eventually(place.has_parked)
    await nats_server.stop()
    shutil.rmtree(nats_server.dir / "store")
    listed = await place.queues.ListQueues(qu.ListQueuesRequest())
    assert [q.parked for q in listed.queues if q.work_class == "evaluation"] == [1]
    assert len(listed.parked) == 1
    assert "NATS" in listed.problem
    await nats_server.start()

    async def figures_are_back() -> bool:
        found = await place.queues.ListQueues(qu.ListQueuesRequest())
        return not found.problem and len(found.parked) == 1

    await eventually(figures_are_back)


async def test_a_failure_worth_retrying_is_delivered_again_and_nothing_is_parked(make_place: MakePlace) -> None:
    place = await make_place("discover")
    doer = Doer(Unavailable("not yet"), Unavailable("not yet"), Unavailable("not yet"))
    await place.doer(WorkClass.EVALUATION, {"discover": doer})

    async def found() -> bool:
        return (await place.run()).score.HasField("before")

    await eventually(found)
    assert doer.calls == 4
    assert await place.parked() == []


async def test_a_failure_that_outlasts_its_deliveries_is_the_commands_result_and_nothing_is_parked(
    make_place: MakePlace,
) -> None:
    place = await make_place("discover")
    doer = Doer(*[Unavailable("never")] * 99)
    await place.doer(WorkClass.EVALUATION, {"discover": doer})

    async def told() -> bool:
        return await reason_of(place) == "discover: unavailable: never"

    await eventually(told)
    assert doer.calls == 4, "not given out again: that would repeat all of it"
    assert await place.parked() == []


async def test_an_unknown_parked_message_is_not_found(make_place: MakePlace) -> None:
    place = await make_place("discover")
    for call, request in (
        (place.queues.GetParked, qu.GetParkedRequest(id="pk-none")),
        (place.queues.RetryParked, qu.RetryParkedRequest(idempotency_key="k", id="pk-none")),
        (place.queues.DropParked, qu.DropParkedRequest(idempotency_key="k", id="pk-none")),
    ):
        with pytest.raises(NotFound) as caught:
            await call(request)
        assert caught.value.field == "id"
