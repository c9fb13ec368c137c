"""What follows from a mode that a skill declares: each response, and that old logs know none of them."""

from typing import Any

import pytest
from anneal_contracts.facts import DeclaredMode, Outcome
from anneal_core import events as ev

from tests.unit.core.world import World, candidate, item


def world(response: str, *, fails: int = 1, **changes: Any) -> World:
    mode = DeclaredMode(name="odd", response=response)
    return World(
        items=[item("a")],
        ladders={"a": [candidate("a", 0), candidate("a", 1)]},
        verdicts={("a", n): Outcome.FAIL for n in range(1, fails + 1)},
        modes={("a", n): "odd" for n in range(1, fails + 1)},
        policy={"modes": (mode,)},
        **changes,
    )


def scripts(w: World) -> list[str]:
    return [a.candidate.title for a in w.state.items["a"].attempts]


@pytest.mark.parametrize("response", ["revert", "ban"])
def test_a_mode_that_takes_back_goes_on_with_the_next_rung(response: str) -> None:
    w = world(response)
    w.create()
    state = w.run()
    assert scripts(w) == ["fix 0 of a", "fix 1 of a"]
    first = state.items["a"].attempts[0]
    assert (first.ending, first.mode, first.response) == (ev.Ending.REVERTED, "odd", response)
    assert state.items["a"].state is ev.ItemStateName.COMPLETED


def test_a_mode_that_keeps_holds_the_change_though_the_check_fails() -> None:
    w = world("keep")
    w.create()
    w.run()
    assert w.state.items["a"].attempts[0].ending is ev.Ending.KEPT
    assert w.state.items["a"].state is ev.ItemStateName.COMPLETED


def test_a_mode_that_defers_keeps_the_change_and_waits_for_the_end() -> None:
    w = world("defer")
    w.create()
    w.run()
    assert w.state.items["a"].attempts[0].ending is ev.Ending.KEPT
    closed = [e.payload["state"] for e in w.log if e.type == "item_closed"]
    assert closed == ["deferred"]
    assert w.state.items["a"].reason == "in effect"


def test_a_retry_runs_the_same_script_once_more_and_then_the_next_rung() -> None:
    w = world("retry")
    w.create()
    w.run()
    assert scripts(w) == ["fix 0 of a", "fix 0 of a"]
    again = world("retry", fails=2)
    again.create()
    again.run()
    assert scripts(again) == ["fix 0 of a", "fix 0 of a", "fix 1 of a"]


def test_an_escalation_takes_back_and_leaves_the_item_to_a_person_at_once() -> None:
    w = world("escalate")
    w.create()
    state = w.run()
    assert scripts(w) == ["fix 0 of a"]
    assert state.items["a"].attempts[0].ending is ev.Ending.REVERTED
    assert state.items["a"].state is ev.ItemStateName.ESCALATED
    assert state.items["a"].reason.startswith("odd: ")


def test_a_run_of_engine_1_knows_only_taking_back() -> None:
    w = world("escalate")
    w.create(engine=1)
    w.run()
    assert scripts(w) == ["fix 0 of a", "fix 1 of a"]


def test_a_run_of_a_newer_engine_is_refused() -> None:
    w = world("keep")
    with pytest.raises(Exception, match="knows up to"):
        w.create(engine=ev.ENGINE + 1)
