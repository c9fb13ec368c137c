"""What a command says of the effect that it asks for: its key, what it takes back, and its place in the order."""

import pytest
from anneal_contracts.facts import Action, FixSource
from anneal_contracts.work import Applied, Apply, Evaluate, Failed
from anneal_core import commands
from anneal_core.state import Pending, RunState
from anneal_skillkit.effects import UNDO_S

from tests.unit.core.world import World, candidate, item

UNDO = Action(source=FixSource.VENDOR, kind="undo", title="undo", content="undo a 0")


def effects_of(world: World) -> list[tuple[str, Apply]]:
    """Runs the world; the apply and undo messages that were built on the way, by the kind of their command."""
    sent: list[tuple[str, Apply]] = []
    answer = world.override

    def watch(state: RunState, pending: Pending) -> object:
        if pending.kind in ("apply", "undo"):
            script = Action(source=FixSource.VENDOR, kind="bash", title="t", content="fix a 0")
            command = commands.build(state, pending, UNDO if pending.kind == "undo" else script)
            assert isinstance(command, Apply)
            sent.append((pending.kind, command))
        return answer(state, pending) if answer else None

    world.override = watch  # type: ignore[assignment]
    world.create()
    world.run()
    return sent


def test_what_was_cut_off_and_is_applied_anew_is_another_effect_and_a_later_command() -> None:
    world = World(items=[item("a")])

    def cut_off_once(state: RunState, pending: Pending) -> Applied | None:
        first = pending.kind == "apply" and "restore" not in world.sent
        return Applied(command_id=pending.command_id, state="interrupted") if first else None

    world.override = cut_off_once
    (_, first), (_, second) = effects_of(world)
    assert first.attempt == second.attempt == 1
    assert first.effect_key != second.effect_key
    assert first.command_seq < second.command_seq
    assert first.undoes == second.undoes == ""


def test_a_command_that_is_given_out_again_asks_for_the_same_effect() -> None:
    world = World(items=[item("a")])

    def late_once(state: RunState, pending: Pending) -> Failed | None:
        if pending.kind != "apply" or world.sent.count("apply") > 1:
            return None
        return Failed(command_id=pending.command_id, reason="unavailable", message="later", retryable=True)

    world.override = late_once
    (_, first), (_, second) = effects_of(world)
    assert first.effect_key == second.effect_key
    assert first.command_seq < second.command_seq


@pytest.mark.parametrize("can_snapshot", [True, False])
def test_only_where_nothing_else_could_take_it_back_a_timer_on_the_target_does(can_snapshot: bool) -> None:
    ladders = {"a": [candidate("a", undo_blob="u")]}
    world = World(items=[item("a")], ladders=ladders, can_snapshot=can_snapshot)
    looks: list[str] = []

    def watch(state: RunState, pending: Pending) -> None:
        if pending.kind == "evaluate":
            look = commands.build(state, pending)
            assert isinstance(look, Evaluate)
            looks.append(look.guarded)

    world.override = watch
    ((_, applied),) = effects_of(world)
    assert applied.guard_s == (0 if can_snapshot else commands.REACH_GRACE_S)
    assert looks == ["" if can_snapshot else applied.effect_key]


def test_an_undo_has_no_timer_and_ends_within_its_commands_time() -> None:
    ladders = {"a": [candidate("a", undo_blob="u", timeout_s=20.0)]}
    world = World(items=[item("a")], ladders=ladders, worse={("a", 1): "sudo no longer works"}, can_snapshot=False)
    (_, applied), (_, undone) = effects_of(world)
    assert undone.guard_s == 0
    # The script, the timer behind its end, the undo script, and some seconds to be told of it.
    assert applied.deadline - world.state.created_at > 20 + commands.REACH_GRACE_S + UNDO_S + 5


def test_an_undo_names_the_effect_that_it_takes_back() -> None:
    ladders = {"a": [candidate("a", undo_blob="u")]}
    world = World(items=[item("a")], ladders=ladders, worse={("a", 1): "sudo no longer works"}, can_snapshot=False)
    (_, applied), (kind, undone) = effects_of(world)
    assert kind == "undo"
    assert undone.undoes == applied.effect_key != undone.effect_key
    assert undone.command_seq > applied.command_seq
