"""Waves, gates, ordering rules, dependencies that come to nothing, and what a run teaches of conflicts."""

from dataclasses import replace
from typing import Any

import pytest
from anneal_contracts.facts import ItemDetail, Mutability, OrderRule, Outcome
from anneal_core import approvals, chain, gate
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.state import RunState

from tests.unit.core.world import World, candidate, item


def run(w: World, **limits: Any) -> RunState:
    w.create(limits=ev.Limits(**limits))
    return w.run()


def chain_of(*pairs: tuple[str, str], **details: Any) -> list[ItemDetail]:
    return [item(i, depends_on=tuple(d), **details.get(i, {})) for i, d in pairs]


def worked(w: World) -> list[str]:
    """Items in the order of their attempts."""
    return [str(e.payload["item_id"]) for e in w.log if e.type == "attempt_started"]


def test_a_wave_is_worked_to_its_end_even_when_a_sibling_fails_and_its_dependants_are_skipped() -> None:
    fails = {("a", n): Outcome.FAIL for n in (1, 2, 3)}
    w = World(items=chain_of(("a", ""), ("b", ""), ("c", "a"), ("d", "b"), ("e", "c")), verdicts=fails)
    state = run(w)
    assert worked(w) == ["a", "b", "d"]
    states = {i: (s.state.value, s.reason) for i, s in state.items.items()}
    assert states["a"][0] == "escalated"
    assert states["c"] == ("skipped", "depends on a, which was escalated")
    assert states["e"] == ("skipped", "depends on c, which was skipped")
    assert states["d"][0] == "completed"


def test_a_dependency_comes_first_whatever_the_skill_thinks_of_its_priority() -> None:
    items = [item("late", priority=9), item("early", priority=1, depends_on=("late",))]
    w = World(items=items)
    run(w)
    assert worked(w) == ["late", "early"]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (chain_of(("a", "b"), ("b", "a")), "the items depend on each other in a circle: a -> b -> a"),
        (chain_of(("a", "x")), "a depends on x, which does not exist"),
    ],
)
def test_what_cannot_be_ordered_is_refused_before_anything_is_touched(items: list[ItemDetail], reason: str) -> None:
    w = World(items=items)
    state = run(w)
    assert (state.phase, state.reason) == ("failed", reason)
    assert "apply" not in w.sent and w.sent[-1] == "release"


def test_an_item_may_depend_on_a_rule_that_holds_already() -> None:
    w = World(items=chain_of(("a", "x")), passing=("x",))
    assert run(w).items["a"].state is ev.ItemStateName.COMPLETED


def test_a_gate_stands_between_waves_and_none_behind_the_last() -> None:
    w = World(items=chain_of(("a", ""), ("b", "a"), ("c", "b")))
    state = run(w)
    assert w.sent.count("gate") == 2
    assert state.goal == "complex" and state.gates
    assert w.sent.index("verify") > max(n for n, kind in enumerate(w.sent) if kind == "gate")


def test_few_independent_items_are_a_simple_goal_without_a_gate_and_the_reasons_are_told() -> None:
    state = run(World(items=[item("a"), item("b")]))
    assert state.goal == "simple" and not state.gates
    assert state.goal_reasons == ("2 items in 1 waves", "0 without a script that may run")


def test_many_items_are_a_medium_goal_and_a_model_that_has_to_write_makes_it_complex() -> None:
    many = [item(f"i{n:02}") for n in range(12)]
    assert run(World(items=many)).goal == "medium"
    none: dict[str, Any] = {"ladders": {i.id: [] for i in many}, "model_may": "author"}
    assert run(World(items=many, **none), max_steps=200).goal == "complex"


def test_what_a_gate_finds_undone_is_mended_by_the_script_that_had_held() -> None:
    ladders = {i: [candidate(i, 0), candidate(i, 1)] for i in "abc"}
    w = World(
        items=chain_of(("a", ""), ("b", ""), ("c", "ab")),
        ladders=ladders,
        verdicts={("a", 1): Outcome.FAIL},
        gates={("a", 1): Outcome.FAIL},
    )
    state = run(w)
    assert worked(w) == ["a", "a", "b", "a", "c"]
    assert [a.candidate.title for a in state.items["a"].attempts] == ["fix 0 of a", "fix 1 of a", "fix 1 of a"]
    assert {s.state for s in state.items.values()} == {ev.ItemStateName.COMPLETED}
    (found,) = state.diagnoses
    assert (found.item_id, found.suspects, found.action) == ("a", ("b",), "reopen")
    assert found.confidence >= gate.SURE_ENOUGH
    assert gate.conflicts(state) == {"a": ("b",)}


def test_an_item_of_an_earlier_wave_that_a_later_gate_finds_undone_is_mended_before_the_next_wave() -> None:
    w = World(items=chain_of(("a", ""), ("b", "a"), ("c", "b")), gates={("a", 2): Outcome.FAIL})
    state = run(w)
    assert worked(w) == ["a", "b", "a", "c"]
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.COMPLETED}


def test_an_item_of_an_earlier_wave_that_waits_for_a_person_again_holds_the_wave_open() -> None:
    risky = candidate("a", mutability=Mutability.DESTRUCTIVE)
    w = World(items=chain_of(("a", ""), ("b", "a"), ("c", "b")), ladders={"a": [risky]}, gates={("a", 2): Outcome.FAIL})
    w.create()
    for _ in range(300):
        for payload in (payloads := decide(w.state, w.now)):
            w.append(payload)
        if w.state.ended:
            break
        if payloads:
            continue
        if w.state.pending:
            w.answer_one()
            continue
        ((asked_of, asked),) = approvals.open_questions(w.state).items()
        word = {"attempt": asked.attempt, "action_hash": asked.action_hash, "granted": True, "by": "ann"}
        w.append(ev.ApprovalAnswered(item_id=asked_of, **word), actor="person:ann")
    assert worked(w) == ["a", "b", "a", "c"]
    assert [a.attempt for a in w.state.items["a"].approvals] == [1, 2]


def test_three_rounds_of_mending_and_then_a_person() -> None:
    w = World(items=chain_of(("a", ""), ("b", ""), ("c", "b")), gates={("a", n): Outcome.FAIL for n in range(1, 9)})
    # Each time that a is mended again, b was changed before it: only the first round has a suspect.
    state = run(w, gate_rounds=3)
    assert state.items["a"].state is ev.ItemStateName.ESCALATED
    assert len([d for d in state.diagnoses if d.item_id == "a"]) <= 4
    assert state.items["c"].state is ev.ItemStateName.COMPLETED


def test_nothing_is_changed_upon_a_diagnosis_that_is_not_sure_enough() -> None:
    w = World(items=chain_of(("a", ""), ("b", ""), ("c", "b")), gates={("b", 1): Outcome.FAIL})
    state = run(w)
    (found,) = state.diagnoses
    assert (found.item_id, found.suspects, found.action) == ("b", (), "escalate")
    assert found.confidence < gate.SURE_ENOUGH
    assert state.items["b"].reason.startswith("it held, and then no longer")
    assert state.items["c"].reason == "depends on b, which was escalated"
    assert len(state.items["b"].attempts) == 1


def test_resources_in_common_point_at_the_suspect() -> None:
    shared = {"a": {"resources": ("/etc/x",)}, "c": {"resources": ("/etc/x", "/etc/y")}}
    items = chain_of(("a", ""), ("b", ""), ("c", ""), ("d", "abc"), **shared)
    state = run(World(items=items, gates={("a", 1): Outcome.FAIL}))
    assert state.diagnoses[0].suspects == ("c",)
    assert state.diagnoses[0].confidence > gate.SURE_ENOUGH


def test_a_machine_that_is_worse_at_a_gate_stops_the_work_but_not_the_last_scan() -> None:
    w = World(items=chain_of(("a", ""), ("b", "a")), worse_at_gates={1: "unit x is newly failed"})
    state = run(w)
    assert state.phase == "finished"
    assert state.items["b"].state is ev.ItemStateName.SKIPPED
    assert "unit x is newly failed" in state.items["b"].reason
    assert "verify" in w.sent


def rule(share: float = 1.0) -> dict[str, Any]:
    return {"order_rules": (OrderRule(items=("imm*",), behind=("category:audit",), share=share, why="it locks audit"),)}


def audit(*ids: str) -> list[ItemDetail]:
    return [item(i, category="audit", priority=n) for n, i in enumerate(ids)]


def test_an_ordering_rule_holds_an_item_back_until_enough_of_its_category_is_settled() -> None:
    w = World(items=[*audit("immutable", "a1", "a2", "a3", "a4"), item("z", priority=99)], policy=rule(0.5))
    run(w)
    assert worked(w) == ["a1", "a2", "immutable", "a3", "a4", "z"]


def test_an_item_that_a_rule_holds_back_for_ever_still_has_its_turn() -> None:
    w = World(items=audit("immutable"), policy=rule())
    state = run(w)
    assert state.items["immutable"].state is ev.ItemStateName.COMPLETED


def test_two_rules_that_hold_each_other_back_stop_nothing() -> None:
    rules = (OrderRule(items=("a",), behind=("b",), why="x"), OrderRule(items=("b",), behind=("a",), why="y"))
    w = World(items=[item("a"), item("b")], policy={"order_rules": rules})
    run(w)
    assert worked(w) == ["a", "b"]


def test_the_next_run_works_an_item_behind_what_undid_it() -> None:
    w = World(items=[item("a"), item("b"), item("c")], after_those={"a": ("b",)})
    run(w)
    assert worked(w) == ["b", "a", "c"]


def test_a_conflict_that_only_the_last_scan_shows_is_a_suggestion_too() -> None:
    w = World(items=[item("a"), item("b")])
    w.create()
    w.run()
    undone = replace(w.state.items["a"], final=Outcome.FAIL)
    state = replace(w.state, items={**w.state.items, "a": undone})
    assert gate.conflicts(state) == {"a": ("b",)}


def test_the_log_of_waves_and_gates_folds_to_the_same_state() -> None:
    w = World(items=chain_of(("a", ""), ("b", ""), ("c", "ab")), gates={("a", 1): Outcome.FAIL})
    state = run(w)
    folded = RunState()
    for event in w.log:
        folded = evolve(folded, event)
    assert folded == state
    assert chain.verify(w.log).ok
