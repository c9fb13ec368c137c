"""The last word on items that were kept in a mode which a skill defers."""

from typing import Any

import pytest
from anneal_contracts.facts import DeclaredMode, DeferredItemOutcome, Outcome
from anneal_contracts.work import DeferredResolved, Failed, Result
from anneal_core import commands
from anneal_core import events as ev
from anneal_core.machine import IllegalEvent
from anneal_core.state import Pending, RunState

from tests.unit.core.world import World, item


def world(ids: str = "ab", **changes: Any) -> World:
    modes = tuple(DeclaredMode(name=n, response="defer") for n in ("boot", "later"))
    return World(
        items=[item(i) for i in ids],
        verdicts={(i, 1): Outcome.FAIL for i in ids},
        modes={(i, 1): "boot" for i in ids},
        policy={"modes": modes},
        **changes,
    )


def test_deferred_items_get_their_last_word_after_the_restart_and_before_the_last_scan() -> None:
    said = DeferredItemOutcome(item_id="b", state="escalated", reason="still off after a boot")
    w = world(resolutions={"b": said})
    w.create()
    state = w.run()
    assert [k for k in w.sent if k != "reflect"][-6:] == [
        "restore",
        "check_health",
        "resolve_deferred",
        "verify",
        "record",
        "release",
    ]
    assert (state.items["a"].state, state.items["a"].reason) == ("completed", "in effect")
    assert (state.items["b"].state, state.items["b"].reason) == ("escalated", "still off after a boot")


def test_each_mode_is_asked_for_its_own_items() -> None:
    w = world("abc")
    w.modes = {("a", 1): "boot", ("b", 1): "later", ("c", 1): "boot"}
    asked: list[tuple[str, list[str]]] = []

    def note(state: RunState, p: Pending) -> Result | None:
        if p.kind == "resolve_deferred":
            message = commands.build(state, p)
            asked.append((p.mode, [d.id for d in message.items]))  # type: ignore[union-attr]
        return None

    w.override = note
    w.create()
    w.run()
    assert asked == [("boot", ["a", "c"]), ("later", ["b"])]


def test_an_outcome_told_on_the_way_is_not_asked_for_again_after_a_crash() -> None:
    w = world("abc")
    asked: list[list[str]] = []

    def crash_once(state: RunState, p: Pending) -> Result | None:
        if p.kind != "resolve_deferred":
            return None
        asked.append([d.id for d in commands.build(state, p).items])  # type: ignore[union-attr]
        if len(asked) > 1:
            return None
        outcome = DeferredItemOutcome(item_id="a", state="completed", reason="seen")
        w.append(ev.DeferredProgress(command_id=p.command_id, text="a is fine", outcome=outcome), actor="evaluator")
        return Failed(command_id=p.command_id, reason="unavailable", message="died", retryable=True)

    w.override = crash_once
    w.create()
    state = w.run()
    assert asked == [["a", "b", "c"], ["b", "c"]]
    assert state.items["a"].reason == "seen"
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "x"]], ids=["one is missing", "one is not asked for"])
def test_outcomes_for_other_items_than_those_asked_for_are_refused(ids: list[str]) -> None:
    w = world()
    outcomes = tuple(DeferredItemOutcome(item_id=i, state="completed", reason="r") for i in ids)
    w.override = lambda _s, p: (
        DeferredResolved(command_id=p.command_id, outcomes=outcomes) if p.kind == "resolve_deferred" else None
    )
    w.create()
    with pytest.raises(IllegalEvent):
        w.run()


def test_a_skill_that_cannot_say_leaves_the_items_deferred_with_a_note_and_the_run_ends() -> None:
    w = world()
    w.override = lambda _s, p: (
        Failed(command_id=p.command_id, reason="internal", message="no") if p.kind == "resolve_deferred" else None
    )
    w.create()
    state = w.run()
    assert state.phase == "finished"
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.DEFERRED}
    assert any(n.startswith("resolve_deferred: internal") for n in state.notes)


def test_progress_for_a_command_that_nobody_waits_for_is_refused() -> None:
    w = world()
    w.create()
    with pytest.raises(IllegalEvent):
        w.append(ev.DeferredProgress(command_id="x", text="hello"))


def test_a_run_of_engine_1_leaves_deferred_items_to_the_last_scan() -> None:
    w = world()
    w.create(engine=1)
    w.run()
    assert "resolve_deferred" not in w.sent


def test_a_command_of_which_everything_was_told_before_a_crash_can_be_given_out_again() -> None:
    w = world("a")
    messages: list[Any] = []

    def crash_after_telling(state: RunState, p: Pending) -> Result | None:
        if p.kind == "resolve_deferred":
            outcome = DeferredItemOutcome(item_id="a", state="completed", reason="seen")
            w.append(ev.DeferredProgress(command_id=p.command_id, text="a", outcome=outcome), actor="evaluator")
            messages.append(commands.build(w.state, p))
            return DeferredResolved(command_id=p.command_id, outcomes=())
        return None

    w.override = crash_after_telling
    w.create()
    assert w.run().items["a"].reason == "seen"
    assert messages[0].items == ()
