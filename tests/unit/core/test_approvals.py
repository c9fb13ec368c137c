"""People's word on destructive actions, and runs that people hold up."""

from typing import Any

import pytest
from anneal_contracts.facts import FixSource, Mutability, Outcome
from anneal_contracts.work import Result
from anneal_core import approvals, chain
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.machine import IllegalEvent
from anneal_core.replay import replay
from anneal_core.state import Pending, RunState

from tests.unit.core.world import World, candidate, item


def risky(item_id: str, n: int = 0, **changes: Any) -> Any:
    return candidate(item_id, n, mutability=Mutability.DESTRUCTIVE, **changes)


def world(**changes: Any) -> World:
    base = {"items": [item("a"), item("b")], "ladders": {"a": [risky("a")], "b": [candidate("b")]}}
    return World(**{**base, **changes})


def until_waiting(w: World, **limits: Any) -> RunState:
    """Drives the run until nothing but a person's word is left."""
    w.create(limits=ev.Limits(**limits))
    for _ in range(500):
        for payload in (payloads := decide(w.state, w.now)):
            w.append(payload)
        if not payloads and not w.state.pending:
            return w.state
        if not payloads:
            w.answer_one()
    raise AssertionError("it never waits")


def answer(w: World, *, granted: bool = True, by: str = "ann", **changes: Any) -> None:
    ((item_id, asked),) = approvals.open_questions(w.state).items()
    facts = {"item_id": item_id, "attempt": asked.attempt, "action_hash": asked.action_hash}
    w.append(ev.ApprovalAnswered(**{**facts, "granted": granted, "by": by, **changes}), actor=f"person:{by}")


def test_a_destructive_action_waits_while_other_items_go_on() -> None:
    w = world()
    state = until_waiting(w)
    assert (state.items["a"].state, state.items["b"].state) == ("waiting", "completed")
    assert state.waiting == {"a"}
    assert not state.ended and "verify" not in w.sent
    assert not state.items["a"].attempts


def test_granted_it_runs_and_the_answer_stays_with_the_item() -> None:
    w = world()
    until_waiting(w)
    answer(w)
    assert not w.state.waiting
    state = w.run()
    assert state.items["a"].state is ev.ItemStateName.COMPLETED
    (asked,) = state.items["a"].approvals
    assert (asked.state, asked.by, asked.attempt) == ("granted", "ann", 1)
    assert replay(w.log).difference is None


def test_denied_it_never_runs_and_the_next_rung_has_its_turn() -> None:
    w = world(ladders={"a": [risky("a"), candidate("a", 1)], "b": [candidate("b")]})
    until_waiting(w)
    answer(w, granted=False, reason="not on a Friday")
    state = w.run()
    assert [a.candidate.title for a in state.items["a"].attempts] == ["fix 1 of a"]


def test_denied_without_another_rung_the_reason_names_who_and_why() -> None:
    w = world()
    until_waiting(w)
    answer(w, granted=False, reason="not on a Friday")
    state = w.run()
    assert state.items["a"].state is ev.ItemStateName.ESCALATED
    assert "denied by ann: not on a Friday" in state.items["a"].reason


def test_a_question_that_nobody_answers_expires_and_the_run_ends() -> None:
    w = world()
    until_waiting(w, approval_ttl_s=60.0)
    w.now += 59
    assert decide(w.state, w.now) == ()
    w.now += 2
    state = w.run()
    assert state.phase == "finished"
    assert "nobody answered in time" in state.items["a"].reason
    assert not state.items["a"].attempts


@pytest.mark.parametrize(
    "changes", [{"action_hash": "0" * 64}, {"attempt": 2}, {"item_id": "b"}], ids=["action", "attempt", "item"]
)
def test_a_word_on_another_action_attempt_or_item_is_refused(changes: dict[str, Any]) -> None:
    w = world()
    before = until_waiting(w)
    with pytest.raises(IllegalEvent):
        answer(w, **changes)
    assert w.state == before


def test_the_first_of_two_answers_counts_and_the_second_is_told() -> None:
    w = world()
    until_waiting(w)
    asked = approvals.open_questions(w.state)["a"]
    answer(w, granted=False)
    late = ev.ApprovalAnswered(item_id="a", attempt=1, action_hash=asked.action_hash, granted=True, by="bob")
    with pytest.raises(IllegalEvent):
        w.append(late, actor="person:bob")
    assert not w.run().items["a"].attempts


def test_an_approval_is_for_one_attempt_only() -> None:
    w = World(
        items=[item("a"), item("b"), item("c", depends_on=("a", "b"))],
        ladders={"a": [risky("a")], "b": [candidate("b")], "c": [candidate("c")]},
        gates={("a", 1): Outcome.FAIL},
    )
    until_waiting(w)
    answer(w)
    for _ in range(200):  # b is changed after a here only if a is asked for first; so a gate may find a undone
        payloads = decide(w.state, w.now)
        for payload in payloads:
            w.append(payload)
        if not payloads and not w.state.pending:
            break
        if not payloads:
            w.answer_one()
    asked = [a.attempt for a in w.state.items["a"].approvals]
    assert asked in ([1], [1, 2])
    if asked == [1, 2]:
        assert w.state.items["a"].state is ev.ItemStateName.WAITING


def test_a_destructive_recalled_script_joins_no_group() -> None:
    ladders = {i: [risky(i, source=FixSource.RECALLED)] for i in "ab"}
    state = until_waiting(world(ladders=ladders), max_group=8)
    assert set(approvals.open_questions(state)) == {"a", "b"}


def test_a_cancelled_run_asks_nobody_any_more() -> None:
    w = world()
    until_waiting(w)
    w.append(ev.CancelRequested(reason="enough"), actor="person")
    state = w.run()
    assert state.phase == "cancelled"
    assert state.items["a"].state is ev.ItemStateName.SKIPPED


def test_the_old_engine_refuses_a_destructive_action_outright() -> None:
    w = world()
    w.create(engine=1)
    assert "needs an approval" in w.run().items["a"].reason


# --- pause and resume ------------------------------------------------------------------------------------------------


def paused_at(w: World, kind: str, item_id: str = "") -> None:
    """Asks for a pause while the first command of this kind is under way."""

    def pause(state: RunState, p: Pending) -> Result | None:
        if p.kind == kind and p.item_id == item_id and not state.paused and not state.paused_s:
            w.append(ev.PauseRequested(by="ann"), actor="person:ann")
        return None

    w.override = pause


def test_a_pause_ends_the_attempt_under_way_and_begins_nothing_new() -> None:
    w = World(items=[item("a"), item("b")])
    paused_at(w, "apply", "a")
    state = until_waiting(w)
    assert (state.items["a"].state, state.items["b"].state) == ("completed", "queued")
    assert state.shown == "paused"
    assert decide(state, w.now + 10_000) == ()


@pytest.mark.parametrize(("kind", "item_id"), [("acquire", ""), ("discover", ""), ("plan", ""), ("verify", "")])
def test_a_paused_run_goes_on_where_it_stood(kind: str, item_id: str) -> None:
    w = World(items=[item("a"), item("b")])
    paused_at(w, kind, item_id)
    until_waiting(w)
    sent = list(w.sent)
    w.append(ev.ResumeRequested(by="ann"), actor="person:ann")
    state = w.run()
    assert state.phase == "finished"
    assert w.sent[: len(sent)] == sent and w.sent.count("discover") == 1
    assert replay(w.log).difference is None


def test_the_time_of_a_pause_is_not_the_runs() -> None:
    w = World(items=[item("a"), item("b")])
    paused_at(w, "apply", "a")
    until_waiting(w, time_budget_s=30.0)
    w.now += 3600
    w.append(ev.ResumeRequested(by="ann"), actor="person:ann")
    assert w.run().items["b"].state is ev.ItemStateName.COMPLETED


def test_a_paused_run_may_be_cancelled() -> None:
    w = World(items=[item("a"), item("b")])
    paused_at(w, "apply", "a")
    until_waiting(w)
    w.append(ev.CancelRequested(reason="enough"), actor="person")
    assert w.run().phase == "cancelled"


def test_pausing_twice_and_resuming_what_runs_are_refused() -> None:
    w = World(items=[item("a")])
    w.create()
    with pytest.raises(IllegalEvent):
        w.append(ev.ResumeRequested(by="ann"))
    w.append(ev.PauseRequested(by="ann"))
    with pytest.raises(IllegalEvent):
        w.append(ev.PauseRequested(by="bob"))
    assert chain.verify(w.log).ok
