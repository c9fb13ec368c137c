"""People's hand on a run: whose word counts, what is told to who comes late, and what can no longer be answered."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from anneal_contracts.facts import Mutability
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.machine import IllegalEvent
from anneal_core.state import RunState
from anneal_runtime.errors import FailedPrecondition, InvalidArgument, NotFound
from anneal_supervisor.control import Control, Question

from tests.unit.core.world import World, candidate, item


class Runs:
    """One run in memory, as the driver takes events in: what does not fit changes nothing and is refused.

    Each submission gives way first, so that two callers see the same state before either has written.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def driven(self) -> Iterable[RunState]:
        return [] if self.world.state.ended else [self.world.state]

    async def state(self, run_id: str) -> RunState:
        if run_id != self.world.run_id:
            raise NotFound(f"no run {run_id}", field="run_id")
        return self.world.state

    async def submit(self, run_id: str, payload: ev.Payload, *, actor: str) -> bool:
        await asyncio.sleep(0)
        if self.world.state.ended:
            return False
        try:
            self.world.append(payload, actor=actor)
        except IllegalEvent:
            return False
        return True

    async def events(self, run_id: str, after: int, *, follow: bool) -> AsyncIterator[chain.Event]:
        for event in self.world.log[after:]:
            yield event


def wait(world: World) -> None:
    """Drives the run until only people are left to wait for, or it has ended."""
    while not world.state.ended:
        payloads = decide(world.state, world.now)
        for payload in payloads:
            world.append(payload)
        if not payloads and not world.state.pending:
            return
        if not payloads:
            world.answer_one()


@pytest.fixture
def world() -> World:
    """A run that asks about the first of two destructive scripts for a; b is done."""
    rungs = [candidate("a", n, mutability=Mutability.DESTRUCTIVE) for n in (0, 1)]
    made = World(items=[item("a"), item("b")], ladders={"a": rungs, "b": [candidate("b")]})
    made.create()
    wait(made)
    return made


@pytest.fixture
def control(world: World) -> Control:
    return Control(Runs(world))


async def only(control: Control) -> Question:
    (question,) = await control.approvals("")
    return question


async def say(control: Control, question: Question, *, granted: bool, by: str, reason: str = "") -> Question:
    return await control.answer(question.id, question.approval.action_hash, granted=granted, by=by, reason=reason)


async def test_of_two_answers_at_once_the_first_wins_and_the_second_is_told(control: Control, world: World) -> None:
    asked = await only(control)
    first, second = await asyncio.gather(
        say(control, asked, granted=False, by="ann", reason="no"),
        say(control, asked, granted=True, by="bob"),
        return_exceptions=True,
    )
    assert isinstance(first, Question) and (first.standing, first.approval.by) == ("denied", "ann")
    assert isinstance(second, FailedPrecondition)
    assert (second.message, second.field) == ("too late: it is denied by ann", "id")
    assert [e.actor for e in world.log if e.type == "approval_answered"] == ["person:ann"]


async def test_the_same_answer_twice_is_one_answer(control: Control, world: World) -> None:
    asked = await only(control)
    both = await asyncio.gather(*(say(control, asked, granted=True, by="ann", reason="ok") for _ in range(2)))
    again = await say(control, asked, granted=True, by="ann", reason="ok")
    assert {(q.standing, q.approval.by, q.approval.reason) for q in (*both, again)} == {("granted", "ann", "ok")}
    assert sum(e.type == "approval_answered" for e in world.log) == 1


@pytest.mark.parametrize(
    ("granted", "by", "reason"), [(False, "ann", "ok"), (True, "bob", "ok"), (True, "ann", "fine")]
)
async def test_an_answer_that_differs_in_anything_is_another_one(
    control: Control, granted: bool, by: str, reason: str
) -> None:
    asked = await only(control)
    await say(control, asked, granted=True, by="ann", reason="ok")
    with pytest.raises(FailedPrecondition, match="too late: it is granted by ann"):
        await say(control, asked, granted=granted, by=by, reason=reason)


async def test_after_the_runs_end_a_question_is_void_and_an_answer_is_too_late(control: Control, world: World) -> None:
    asked = await only(control)
    world.append(ev.CancelRequested(reason="enough"), actor="person")
    wait(world)
    assert world.state.phase == "cancelled"
    assert await control.approvals("") == []
    (void,) = await control.approvals(world.run_id)
    assert void.standing == "void"
    with pytest.raises(FailedPrecondition, match="too late: it is void"):
        await say(control, asked, granted=True, by="ann")


async def test_the_question_about_the_next_script_for_the_same_attempt_is_another_one(
    control: Control, world: World
) -> None:
    first = await only(control)
    await say(control, first, granted=False, by="ann")
    wait(world)
    second = await only(control)
    assert first.approval.attempt == second.approval.attempt == 1
    assert (first.id, second.id) == ("run-1/a/1", "run-1/a/2")
    assert (await control.approval(first.id)).standing == "denied"
    answered = await say(control, second, granted=True, by="ann")
    assert (answered.id, answered.standing) == (second.id, "granted")
    assert [q.standing for q in await control.approvals(world.run_id)] == ["denied", "granted"]


async def test_a_question_that_a_fork_took_over_is_void_beside_its_own(world: World) -> None:
    world.append(ev.CancelRequested(reason="enough"), actor="person")
    wait(world)
    seq = next(e.seq for e in world.log if e.type == "approval_asked")
    child = world.fork(seq)
    wait(child)
    control = Control(Runs(child))
    assert [(q.id, q.standing) for q in await control.approvals(child.run_id)] == [
        (f"{child.run_id}/a/1", "void"),
        (f"{child.run_id}/a/2", "asked"),
    ]
    assert (await only(control)).id == f"{child.run_id}/a/2"


async def test_an_action_that_the_person_has_not_seen_is_not_agreed_to(control: Control, world: World) -> None:
    asked = await only(control)
    with pytest.raises(FailedPrecondition) as other:
        await control.answer(asked.id, "0" * 64, granted=True, by="ann", reason="")
    with pytest.raises(InvalidArgument) as nobody:
        await control.answer(asked.id, asked.approval.action_hash, granted=True, by="", reason="")
    assert (other.value.field, nobody.value.field) == ("action_hash", "by")
    assert (await only(control)).standing == "asked"


@pytest.mark.parametrize("given", ["", "run-1", "run-1/", "run-1/a", "run-1/a/0", "run-1/a/2", "run-1/b/1", "no/a/1"])
async def test_what_nobody_asked_is_not_found(control: Control, given: str) -> None:
    with pytest.raises(NotFound):
        await control.approval(given)


async def test_pausing_twice_is_harmless_and_a_run_that_is_not_paused_does_not_resume(
    control: Control, world: World
) -> None:
    with pytest.raises(FailedPrecondition, match="is not paused"):
        await control.resume("run-1", "ann")
    states = [await control.pause("run-1", by, "lunch") for by in ("ann", "bob")]
    assert states == ["paused", "paused"]
    assert [e.payload["by"] for e in world.log if e.type == "pause_requested"] == ["ann"]
    assert await control.resume("run-1", "bob") != "paused"


async def test_an_ended_run_is_neither_paused_nor_resumed(control: Control, world: World) -> None:
    world.append(ev.CancelRequested(reason="enough"), actor="person")
    wait(world)
    for call in (control.pause("run-1", "ann", ""), control.resume("run-1", "ann")):
        with pytest.raises(FailedPrecondition, match="is cancelled already"):
            await call


async def test_words_of_any_length_are_cut_to_what_the_log_holds(control: Control, world: World) -> None:
    await say(control, await only(control), granted=False, by="b" * 999, reason="r" * 9999)
    (event,) = (e for e in world.log if e.type == "approval_answered")
    assert (len(event.payload["by"]), len(event.payload["reason"])) == (200, 500)


async def test_replay_decides_the_stored_log_again(control: Control, world: World) -> None:
    found = await control.replay("run-1")
    assert found.difference is None and found.state == world.state
