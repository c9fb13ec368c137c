"""The word that the dead-man timer on a target waits for: from a new session with our rights, and from nothing else."""

from types import SimpleNamespace
from typing import Any

import pytest
from anneal_contracts.facts import Health, Outcome
from anneal_contracts.work import Evaluate
from anneal_evaluator.domain import Evaluations
from anneal_runtime.errors import TargetUnreachable
from anneal_skillkit.interfaces import ExecResult, Judgement

from tests.unit.evaluator.test_domain import WELL, Machine, health

KEY = "effect-of-the-attempt"


class Guarded(Machine):
    """A machine whose wrapper answers to the word."""

    answer = b"anneal-effect disarmed 0 0 0\n"
    ran: tuple[str, ...] = ()
    access: Any = SimpleNamespace(name="box")

    async def run(self, argv: Any, **_: Any) -> ExecResult:
        self.ran = (*self.ran, f"{argv[4]} {argv[5]}")
        return ExecResult(exit_code=0, stdout=self.answer, stderr=b"")


async def look(machine: Machine, guarded: str = KEY) -> Any:
    command = Evaluate(
        command_id="c", run_id="r", skill="s", target="t", deadline=0.0, item_id="a", attempt=1, health_before=WELL,
        guarded=guarded,
    )  # fmt: skip
    return await Evaluations(machine).evaluate(command)  # type: ignore[arg-type]


async def test_the_timer_is_disarmed_when_a_new_session_has_our_rights() -> None:
    machine = Guarded()
    found = await look(machine)
    assert machine.ran == (f"disarm {KEY}",)
    assert (found.outcome, found.worse) == (Outcome.PASS, ())


async def test_it_is_disarmed_as_well_where_something_else_got_worse() -> None:
    machine = Guarded(now=health(failed_units=("a.service",)))
    found = await look(machine)
    assert machine.ran == (f"disarm {KEY}",)
    assert found.worse


@pytest.mark.parametrize("now", [health(privileged=False), health(reachable=False)])
async def test_it_stays_armed_where_only_the_timer_can_take_the_change_back(now: Health) -> None:
    machine = Guarded(now=now)
    found = await look(machine)
    assert machine.ran == ()
    assert found.worse


async def test_it_stays_armed_where_no_new_session_opens() -> None:
    machine = Guarded(canary_error=TargetUnreachable("no route to host"))
    found = await look(machine)
    assert machine.ran == ()
    assert not found.health.reachable


async def test_a_word_that_comes_too_late_makes_the_attempt_one_that_is_taken_back() -> None:
    machine = Guarded(verdicts={"a": Judgement(outcome=Outcome.PASS)})
    machine.answer = b"anneal-effect reverted 0 0 0\nundone\n"
    found = await look(machine)
    assert found.outcome is Outcome.OTHER
    assert "dead-man timer" in found.worse[0]


async def test_where_no_timer_waits_nothing_is_asked_of_the_target() -> None:
    machine = Guarded()
    await look(machine, guarded="")
    assert machine.ran == ()
