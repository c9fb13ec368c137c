"""Caps that hold whatever fails on the way, and ends with a reason for every item."""

from collections.abc import Callable

import pytest
from anneal_contracts.base import Usage
from anneal_contracts.facts import FixSource, Health, Mutability, Outcome
from anneal_contracts.turns import Chosen, Proposed, Reflected
from anneal_contracts.work import Applied, Evaluated, Failed, GroupEvaluated, HealthChecked, Restored, Result
from anneal_core import events as ev
from anneal_core.commands import build
from anneal_core.decide import decide
from anneal_core.limits import RoleLimits
from anneal_core.records import replace
from anneal_core.state import Pending, Phase, RunState

from tests.unit.core.world import World, candidate, item

Override = Callable[[RunState, Pending], Result | None]


def down(p: Pending) -> Failed:
    return Failed(command_id=p.command_id, reason="unavailable", message="down", retryable=True)


def failing(*kinds: str, times: int = 9) -> Override:
    """These kinds of commands fail so many times, in a way that is worth another try."""
    left = dict.fromkeys(kinds, times)

    def answer(_state: RunState, p: Pending) -> Result | None:
        if not left.get(p.kind):
            return None
        left[p.kind] -= 1
        return down(p)

    return answer


def late(w: World, seconds: float, *kinds: str) -> Override:
    """These kinds of commands take so long; what they give is as always."""

    def answer(_state: RunState, p: Pending) -> None:
        if p.kind in kinds:
            w.now += seconds

    return answer


@pytest.mark.parametrize("can_snapshot", [True, False])
@pytest.mark.parametrize("kinds", [("apply",), ("evaluate",), ("undo",), ("verify",), ("apply", "evaluate", "verify")])
def test_tries_of_commands_that_fail_never_pass_the_cap_of_steps(can_snapshot: bool, kinds: tuple[str, ...]) -> None:
    ladders = {i: [candidate(i, n, undo_blob="u") for n in (0, 1)] for i in "abc"}
    verdicts = {(i, 1): Outcome.FAIL for i in "abc"}
    for cap in range(5, 20):
        w = World(items=[item(i) for i in "abc"], ladders=ladders, verdicts=verdicts, can_snapshot=can_snapshot)
        w.override = failing(*kinds, times=2)
        w.create(limits=ev.Limits(max_steps=cap))
        assert w.run().steps <= cap


def test_with_steps_left_a_command_still_has_all_its_tries() -> None:
    w = World(items=[item("a")], override=failing("apply", "evaluate", "verify", times=2))
    w.create()
    state = w.run()
    assert state.items["a"].state is ev.ItemStateName.COMPLETED
    assert [w.sent.count(kind) for kind in ("apply", "evaluate", "verify")] == [3, 3, 3]


def test_words_written_beside_the_main_line_have_their_steps_kept_free() -> None:
    for cap in range(8, 20):
        w = World(items=[item(i) for i in "abcd"], verdicts={("a", 1): Outcome.FAIL})

        def wordy(_state: RunState, p: Pending) -> Result | None:
            return Reflected(command_id=p.command_id, usage=Usage(calls=3)) if p.kind == "reflect" else None

        w.override = wordy
        w.create(limits=ev.Limits(max_steps=cap))
        assert w.run().steps <= cap


def test_a_turn_is_told_of_fewer_calls_while_words_are_being_written() -> None:
    w = World(items=[item(i) for i in "ab"], ladders={"b": []}, model_may="author", verdicts={("a", 1): Outcome.FAIL})
    w.create(limits=ev.Limits(max_steps=11, max_attempts=1))
    while not any(p.kind == "propose" for p in w.state.pending.values()):
        for payload in (payloads := decide(w.state, w.now)):
            w.append(payload)
        if not payloads and {p.kind for p in w.state.pending.values()} != {"reflect"}:
            w.answer_one()
    assert {p.kind for p in w.state.pending.values()} == {"reflect", "propose"}
    turn = next(p for p in w.state.pending.values() if p.kind == "propose")
    assert build(w.state, turn).calls_left == 3  # type: ignore[union-attr]
    w.state = replace(w.state, steps=w.state.limits.max_steps - 6)
    assert build(w.state, turn).calls_left == 2  # type: ignore[union-attr]


def test_after_the_time_budget_an_action_is_not_given_out_again() -> None:
    w = World(items=[item("a")])
    w.create(limits=ev.Limits(time_budget_s=1.0))
    first = failing("apply")

    def both(state: RunState, p: Pending) -> Result | None:
        late(w, 2.0, "apply")(state, p)
        return first(state, p)

    w.override = both
    state = w.run()
    assert w.sent.count("apply") == 1
    assert state.items["a"].attempts[0].mode == "apply_error"


def test_after_the_time_budget_a_judgement_still_has_its_tries() -> None:
    w = World(items=[item("a")])
    down_twice = failing("evaluate", times=2)

    def both(state: RunState, p: Pending) -> Result | None:
        late(w, 5.0, "evaluate")(state, p)
        return down_twice(state, p)

    w.override = both
    w.create(limits=ev.Limits(time_budget_s=4.0))
    assert w.run().items["a"].state is ev.ItemStateName.COMPLETED


def test_an_action_that_was_cut_off_is_not_begun_anew_after_the_time_budget() -> None:
    w = World(items=[item("a")], applied={("a", 1): Applied(command_id="x", state="interrupted")})
    w.override = late(w, 5.0, "restore")
    w.create(limits=ev.Limits(time_budget_s=4.0))
    state = w.run()
    assert w.sent.count("apply") == 1
    (attempt,) = state.items["a"].attempts
    assert (attempt.ending, attempt.mode) == (ev.Ending.REVERTED, "apply_error")


def test_after_the_time_budget_nobody_is_asked_for_words() -> None:
    w = World(items=[item("a"), item("b")], verdicts={(i, 1): Outcome.FAIL for i in "ab"})
    w.override = late(w, 60.0, "reflect")
    w.create(limits=ev.Limits(time_budget_s=30.0))
    while not w.state.ended:
        for payload in (payloads := decide(w.state, w.now)):
            w.append(payload)
        if not payloads and not w.state.ended:
            answer_words_last(w)
    assert [i.state for i in w.state.items.values()] == ["escalated", "escalated"]
    assert w.sent.count("reflect") == 1


def test_what_regressed_is_left_where_it_is_when_no_attempt_would_fit_any_more() -> None:
    w = World(items=[item("a")], passing=("c",), after={"c": Outcome.FAIL}, regressed=(item("c"),))
    w.override = late(w, 60.0, "verify")
    w.create(limits=ev.Limits(time_budget_s=30.0))
    state = w.run()
    assert w.sent.count("verify") == 1 and "c" not in state.items
    assert state.regressions() == ("c",)


def test_a_scan_that_is_given_out_again_has_nothing_new_before_it() -> None:
    """Steps that words under way had kept free are back once these are written: too late for another look."""
    w = World(items=[item("a"), item("b")], inapplicable=("n",), verdicts={("a", 1): Outcome.FAIL})
    w.override = failing("verify", times=1)
    w.create(limits=ev.Limits(max_steps=10, max_attempts=1))
    while not w.state.ended:
        for payload in (payloads := decide(w.state, w.now)):
            w.append(payload)
        if not payloads and not w.state.ended:
            answer_words_last(w)
    assert w.sent.count("verify") == 2 and "look_again" not in w.sent


def answer_words_last(w: World) -> None:
    """Words come when nothing else is left to do but the scan."""
    words = [p for p in w.state.pending.values() if p.kind == "reflect"]
    main = [p for p in w.state.pending.values() if p.kind != "reflect"]
    if words and (not main or main[0].kind == "verify"):
        main = words
    w.state = replace(w.state, pending={p.command_id: p for p in (*main, *words)})
    w.answer_one()


def test_when_a_run_fails_every_item_has_an_end_and_what_was_begun_goes_to_a_person() -> None:
    def broken(_state: RunState, p: Pending) -> Result | None:
        return Failed(command_id=p.command_id, reason="not_found", message="gone") if p.kind == "restore" else None

    w = World(items=[item(i) for i in "abc"], verdicts={("b", 1): Outcome.FAIL}, override=broken)
    w.create()
    state = w.run()
    assert state.phase is Phase.FAILED
    assert [i.state for i in state.items.values()] == ["completed", "escalated", "skipped"]
    assert all("not_found: gone" in state.items[i].reason for i in "bc")
    assert {state.items[i].decided_by for i in "bc"} == {"run"}


def test_an_open_group_of_a_run_that_fails_goes_to_a_person() -> None:
    def lost(_state: RunState, p: Pending) -> Result | None:
        if p.kind == "evaluate_group":
            found = Evaluated(command_id=p.command_id, outcome=Outcome.FAIL, health=Health(reachable=True))
            return GroupEvaluated(command_id=p.command_id, items=dict.fromkeys("ab", found))
        return Failed(command_id=p.command_id, reason="not_found", message="gone") if p.kind == "restore" else None

    ladders = {i: [candidate(i, source=FixSource.RECALLED)] for i in "ab"}
    w = World(items=[item(i) for i in "ab"], ladders=ladders, override=lost)
    w.create(limits=ev.Limits(max_group=4))
    state = w.run()
    assert state.phase is Phase.FAILED
    assert {i.state for i in state.items.values()} == {ev.ItemStateName.ESCALATED}


def test_a_target_lost_after_a_restore_leaves_no_item_open() -> None:
    def lost(_state: RunState, p: Pending) -> Result | None:
        if p.kind == "check_health":
            return HealthChecked(command_id=p.command_id, health=Health(reachable=False, detail="no route"))
        return Restored(command_id=p.command_id, restored=True) if p.kind == "restore" else None

    w = World(items=[item("a"), item("b")], verdicts={("a", 1): Outcome.FAIL}, override=lost)
    w.create()
    state = w.run()
    assert state.phase is Phase.FAILED
    assert all(i.reason and i.state not in ("queued", "active") for i in state.items.values())


def test_the_architects_choice_that_needs_an_approval_is_asked_for_once() -> None:
    def mind(_state: RunState, p: Pending) -> Result | None:
        if p.kind == "choose_item":
            return Chosen(command_id=p.command_id, item_id="b", reason="so")
        if p.kind == "propose" and p.item_id == "b":
            made = candidate("b", 5, source=FixSource.MODEL, mutability=Mutability.DESTRUCTIVE)
            return Proposed(command_id=p.command_id, candidate=made)
        return None

    items = [item("a"), item("b"), item("c", depends_on=("a",))]
    w = World(items=items, ladders={i: [] for i in "abc"}, model_may="author", override=mind)
    w.create(limits=ev.Limits(roles=RoleLimits(choices=1), approval_ttl_s=50.0))
    for _ in range(300):
        payloads = decide(w.state, w.now)
        for payload in payloads:
            w.append(payload)
        if w.state.ended:
            break
        if not payloads and w.state.pending:
            w.answer_one()
        elif not payloads:
            w.now += 10.0
    asked = [e for e in w.log if e.type == "approval_asked"]
    assert w.state.ended and len(asked) == 1
    assert w.state.items["b"].chosen_why == "so"


def test_a_gate_is_not_asked_when_nothing_more_can_be_built() -> None:
    items = [item("a"), item("b", depends_on=("a",)), item("c", depends_on=("b",))]
    w = World(items=items)
    w.override = late(w, 60.0, "evaluate")
    w.create(limits=ev.Limits(time_budget_s=30.0))
    state = w.run()
    assert "gate" not in w.sent
    assert [i.state for i in state.items.values()] == ["completed", "skipped", "skipped"]


def test_what_a_gate_finds_undone_goes_to_a_person_with_the_cause_when_it_cannot_be_mended() -> None:
    items = [item("a"), item("b"), item("c", depends_on=("b",)), item("d", depends_on=("c",))]
    w = World(items=items, gates={("a", 1): Outcome.FAIL})
    w.override = late(w, 60.0, "gate")
    w.create(limits=ev.Limits(time_budget_s=30.0))
    state = w.run()
    assert state.items["a"].state is ev.ItemStateName.ESCALATED
    assert "undone by b" in state.items["a"].reason and "time budget" in state.items["a"].reason
