"""Recalled scripts that are judged and kept together."""

from typing import Any

import pytest
from anneal_contracts.facts import FixSource, Outcome
from anneal_contracts.work import (
    Applied,
    Candidate,
    Failed,
    GroupEvaluated,
    Result,
)
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import Pending, RunState

from tests.unit.core.world import World, candidate, item


def recalled(item_id: str, **changes: Any) -> Candidate:
    return candidate(item_id, source=FixSource.RECALLED, **changes)


def world(ids: str, **changes: Any) -> World:
    ladders = {i: [recalled(i), candidate(i, 1)] for i in ids}
    return World(**{"items": [item(i) for i in ids], "ladders": ladders, **changes})


def run(w: World, *, max_group: int = 16, **limits: Any) -> RunState:
    w.create(limits=ev.Limits(max_group=max_group, **limits))
    return w.run()


def test_recalled_scripts_are_applied_one_by_one_and_judged_and_kept_together() -> None:
    w = world("abc")
    state = run(w)
    assert w.sent[3:8] == ["plan", "apply", "apply", "apply", "evaluate_group"]
    assert w.sent.count("evaluate") == 0
    assert state.generation == 1
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}
    assert {i.rung for i in state.items.values()} == {"recalled"}
    assert {i.attempts[0].generation for i in state.items.values()} == {1}
    assert state.group == () and state.active == "" and state.groups == 1


def test_a_group_saves_a_step_for_each_member_but_one() -> None:
    assert run(world("abcd"), max_group=1).steps - run(world("abcd")).steps == 3


def test_a_group_has_no_more_members_than_the_limit_and_the_rest_make_another() -> None:
    w = world("abcde")
    state = run(w, max_group=2)
    assert [i.attempts[0].group for i in state.items.values()] == [1, 1, 2, 2, 0]
    assert w.sent.count("evaluate_group") == 2 and w.sent.count("evaluate") == 1
    assert state.generation == 3


@pytest.mark.parametrize(
    "changes",
    [{"risks_reach": True}, {"needs_reboot": True}, {"source": FixSource.VENDOR}],
    ids=["risks reach", "needs a reboot", "not recalled"],
)
def test_what_has_no_proof_or_may_lock_us_out_stays_alone(changes: dict[str, Any]) -> None:
    w = world("abcd")
    w.ladders = {**w.ladders, "c": [candidate("c", **{"source": FixSource.RECALLED, **changes})]}
    state = run(w)
    assert [i.attempts[0].group for i in state.items.values()] == [1, 1, 0, 0]


def test_without_snapshots_nothing_is_grouped() -> None:
    ladders = {i: [recalled(i, undo_blob="0" * 64)] for i in "ab"}
    state = run(world("ab", ladders=ladders, can_snapshot=False))
    assert state.groups == 0
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}


def test_one_failing_check_takes_the_group_back_and_each_item_is_tried_by_itself() -> None:
    w = world("abc", verdicts={("b", 1): Outcome.FAIL, ("b", 2): Outcome.FAIL})
    state = run(w)
    first = [i.attempts[0] for i in state.items.values()]
    assert {(a.ending, a.mode) for a in first} == {(ev.Ending.REVERTED, "group_reverted")}
    assert all("b: evaluator_gap" in a.detail for a in first)
    assert w.sent.count("evaluate_group") == 1
    assert [len(i.attempts) for i in state.items.values()] == [2, 3, 2]
    assert [i.attempts[-1].candidate.source for i in state.items.values()] == ["recalled", "curated", "recalled"]
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}


def test_the_machine_is_put_back_by_force_to_the_generation_before_the_group() -> None:
    w = world("abc", worse={("a", 1): "unit x is newly failed"})
    run(w)
    restores = [e.payload for e in w.log if e.payload.get("kind") == "restore"]
    assert (restores[0]["generation"], restores[0]["force"], restores[0]["group"]) == (0, True, 1)
    after = w.sent[w.sent.index("restore") + 1 :]
    assert after[0] == "check_health"


def test_a_script_that_cannot_be_carried_out_ends_the_group_before_the_others_run() -> None:
    broken = Applied(command_id="x", state="interrupted")
    w = world("abc", applied={("b", 1): broken})
    state = run(w)
    assert w.sent[4:7] == ["apply", "apply", "restore"]
    assert not [a for a in state.items["c"].attempts if a.group]
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}


def test_a_group_taken_back_counts_against_no_attempt() -> None:
    verdicts = {("a", n): Outcome.FAIL for n in (1, 2)}
    state = run(world("ab", verdicts=verdicts), max_attempts=1)
    assert state.items["a"].reason.startswith("1 of 1 attempts failed: fix 0 of a (evaluator_gap)")
    assert state.items["b"].state is ev.ItemStateName.COMPLETED


def test_a_group_that_could_not_be_judged_is_taken_back() -> None:
    def lost(_state: RunState, p: Pending) -> Result | None:
        if p.kind != "evaluate_group":
            return None
        return Failed(command_id=p.command_id, reason="internal", message="no", retryable=False)

    state = run(world("ab", override=lost))
    assert all(i.attempts[0].mode == "group_reverted" for i in state.items.values())
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}


def test_verdicts_for_other_items_than_the_groups_are_refused() -> None:
    w = world("ab")

    def answer(state: RunState, p: Pending) -> Result | None:
        found = w._judged(p.command_id, "a") if p.kind == "evaluate_group" else None
        return GroupEvaluated(command_id=p.command_id, items={"a": found}) if found else None

    w.override = answer
    with pytest.raises(IllegalEvent, match="verdicts for 1 items, and the group has 2"):
        run(w)


def test_a_cancelled_run_judges_what_was_applied_and_opens_nothing_more() -> None:
    w = world("abc")

    def cancel(state: RunState, p: Pending) -> Result | None:
        if p.kind == "apply" and p.item_id == "b" and not state.cancel:
            w.append(ev.CancelRequested(reason="enough"), actor="person")
        return None

    w.override = cancel
    state = run(w)
    assert [i.state for i in state.items.values()] == ["completed", "completed", "skipped"]
    assert w.sent.count("evaluate_group") == 1


def test_the_cap_of_steps_closes_a_group_in_time_and_is_never_passed() -> None:
    for cap in range(5, 16):
        w = world("abcdef")
        state = run(w, max_steps=cap)
        assert state.steps <= cap
        assert all(i.state in ("completed", "skipped") for i in state.items.values())


def test_the_time_of_the_look_and_of_the_generation_is_shared() -> None:
    state = run(world("abcde"))
    for entry in state.items.values():
        assert entry.attempts[0].parts["evaluate"] == pytest.approx(0.02)
        assert entry.attempts[0].parts["keep"] == pytest.approx(0.02)


def test_the_fold_of_the_log_gives_the_same_state() -> None:
    w = world("abc", verdicts={("b", 1): Outcome.FAIL})
    state = run(w)
    folded = RunState()
    for event in w.log:
        folded = evolve(folded, event)
    assert folded == state
    assert chain.verify(w.log).ok
