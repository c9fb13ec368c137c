"""A run that goes on from any moment of another one: on the machine of that moment, with bounds of its own."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from anneal_contracts.facts import DeclaredMode, FixSource, Mutability, Outcome
from anneal_contracts.work import Failed, Result
from anneal_core import approvals, chain, commands
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.fork import nothing_left
from anneal_core.machine import IllegalEvent
from anneal_core.replay import replay
from anneal_core.state import Pending, RunState

from tests.unit.core.world import World, candidate, item

Change = tuple[str, int]


@dataclass
class Machine:
    """What is on the target: attempts that were applied and not taken back, and what was saved of it by whom."""

    there: list[Change] = field(default_factory=list)
    saved: dict[tuple[str, int], list[Change]] = field(default_factory=dict)

    def carry_out(self, state: RunState, p: Pending) -> Result | None:
        match p.kind:
            case "apply":
                self.there.append((p.item_id, p.attempt))
            case "snapshot":
                self.saved[state.run_id, p.generation] = list(self.there)
            case "restore":
                self.there = list(self.saved[state.run_id, p.generation])
            case "rewind":
                assert state.origin is not None and p.force
                self.there = list(self.saved[state.origin.parent, p.generation])
        return None


def kept(state: RunState) -> list[Change]:
    return sorted((i, a.number) for i, it in state.items.items() for a in it.attempts if a.ending is ev.Ending.KEPT)


def eventful(**limits: Any) -> World:
    """Waves with a gate that fails, a group, a deferred item, failures, a model's turn, a repair round."""
    ids = "abcdefg"
    recalled = {i: [candidate(i, source=FixSource.RECALLED)] for i in "cde"}
    w = World(
        items=[item("a"), item("b", depends_on=("a",)), *(item(i) for i in "cdef"), item("g", depends_on=("b",))],
        ladders={
            **{i: [candidate(i, 0), candidate(i, 1)] for i in ids},
            **recalled,
            "f": [candidate("f", 0)],
        },
        verdicts={("a", 1): Outcome.FAIL, ("b", 1): Outcome.FAIL, ("f", 1): Outcome.FAIL, ("e", 2): Outcome.FAIL},
        gates={("a", 1): Outcome.FAIL},
        modes={("b", 1): "boot"},
        policy={"modes": (DeclaredMode(name="boot", response="defer"),)},
        passing=("z",),
        after={"z": Outcome.FAIL},
        regressed=(item("z"),),
        model_may="author",
    )
    w.create(limits=ev.Limits(max_group=8, **limits))
    return w


def ran(w: World) -> tuple[World, Machine]:
    machine = Machine()
    w.override = machine.carry_out
    w.run()
    return w, machine


def on(machine: Machine, child: World) -> World:
    """The fork works on the machine as the other run left it."""
    child.override = machine.carry_out
    return child


PARTS = 12


@pytest.mark.parametrize("part", range(PARTS))
def test_from_every_event_of_a_log_a_fork_comes_to_its_end_on_the_machine_of_that_moment(part: int) -> None:
    parent, machine = ran(eventful())
    assert machine.there and parent.state.groups and parent.state.diagnoses and parent.state.round == 1
    lengths = set()
    for seq in range(part + 1, len(parent.log) + 1, PARTS):
        copy = Machine(there=list(machine.there), saved=dict(machine.saved))
        child = on(copy, parent.fork(seq))
        state = child.run()
        assert state.phase == "finished", (seq, state.reason)
        assert sorted(copy.there) == kept(state), seq
        assert all(i.state not in ("queued", "active", "waiting") for i in state.items.values()), seq
        assert chain.verify(child.log).ok
        assert replay(child.log).difference is None, (seq, replay(child.log).difference)
        lengths.add(len(child.log) - seq)
    assert len(lengths) > 5  # they do not all go the same way


def test_a_fork_replays_at_each_of_its_moments_and_so_does_a_fork_of_it() -> None:
    parent, machine = ran(eventful())
    child = on(machine, parent.fork(len(parent.log) // 2))
    child.run()
    grandchild = on(machine, child.fork(len(child.log) - 10))
    grandchild.run()
    assert grandchild.state.origin is not None and grandchild.state.origin.parent == child.run_id
    for w in (child, grandchild):
        assert w.state.origin is not None
        assert all(replay(w.log[:n]).difference is None for n in range(w.state.origin.seq + 1, len(w.log) + 1, 5))
    assert replay(grandchild.log).state == grandchild.state


def test_a_past_that_is_not_the_other_runs_is_found_although_its_chain_holds() -> None:
    parent, machine = ran(eventful())
    child = on(machine, parent.fork(30))
    child.run()
    event = child.log[9]
    changed = [*child.log[:9], event.model_copy(update={"at": event.at + 1}), *child.log[10:]]
    rechained = list(chain.renamed(changed, child.run_id))
    assert chain.verify(rechained).ok
    found = replay(rechained).difference
    assert found is not None and found.seq == 31
    assert found.reason == "the events before it are not those of the run that it names"


def at(w: World, type_: str, /, **facts: Any) -> int:
    """Number of the first event of this type with these facts."""
    return next(e.seq for e in w.log if e.type == type_ and facts.items() <= e.payload.items())


def test_the_moment_before_an_attempt_is_lived_again_with_another_bound() -> None:
    parent, machine = ran(eventful(max_attempts=1))
    assert parent.state.items["a"].state is ev.ItemStateName.ESCALATED
    seq = at(parent, "attempt_started", item_id="a") - 1
    child = on(machine, parent.fork(seq, limits={"max_attempts": 3}))
    state = child.run()
    assert state.items["a"].state is ev.ItemStateName.COMPLETED
    assert [a.number for a in state.items["a"].attempts][:2] == [1, 2]
    assert (state.limits.max_attempts, state.limits.max_group) == (3, 8)


@pytest.mark.parametrize("kind", ["apply", "evaluate", "restore"])
def plain(**facts: Any) -> tuple[World, Machine]:
    w = World(items=[item("a")], **facts)
    w.create()
    return ran(w)


@pytest.mark.parametrize("kind", ["apply", "evaluate", "restore"])
def test_an_attempt_that_was_under_way_goes_again_as_another_effect(kind: str) -> None:
    parent, machine = plain(verdicts={("a", 1): Outcome.FAIL})
    seq = at(parent, "command_issued", kind=kind, item_id="a")
    before = parent.fork(seq).state
    assert not before.items["a"].attempts and before.active == "" and not before.pending
    child = on(machine, parent.fork(seq))
    state = child.run()
    assert child.sent[:5] == ["acquire", "rewind", "check_health", "snapshot", "apply"]
    (attempt,) = state.items["a"].attempts
    (first,) = parent.state.items["a"].attempts
    assert commands.apply_key(state.run_id, "a", attempt) != commands.apply_key(parent.run_id, "a", first)


def test_an_attempt_whose_generation_was_taken_is_only_closed() -> None:
    parent, machine = plain()
    child = on(machine, parent.fork(at(parent, "attempt_ended") - 1))
    state = child.run()
    assert "apply" not in child.sent
    assert kept(state) == [("a", 1)] == machine.there


def test_a_fork_knows_which_attempts_are_the_other_runs() -> None:
    parent, machine = ran(eventful())
    child = on(machine, parent.fork(at(parent, "attempt_started", item_id="f") - 1))
    state = child.run()
    assert {i: (it.inherited, len(it.attempts)) for i, it in state.items.items() if i in "afb"} == {
        "a": (2, 3),
        "f": (0, 1),
        "b": (0, 1),
    }


# --- time, steps, ends ------------------------------------------------------------------------------------------------


def test_time_counts_from_the_fork_and_steps_go_on() -> None:
    w = World(items=[item("a"), item("b")])
    w.create(limits=ev.Limits(time_budget_s=100.0))
    w.run()
    w.now += 5000
    seq = at(w, "attempt_started", item_id="b") - 1
    child = w.fork(seq)
    assert child.state.created_at == w.now
    assert child.state.steps == 3  # discovery, and a's action and verdict
    assert child.run().items["b"].state is ev.ItemStateName.COMPLETED


def test_a_run_whose_time_was_used_up_goes_on_with_what_it_left_out() -> None:
    w = World(items=[item("a"), item("b", depends_on=("a",)), item("c")])
    w.create(limits=ev.Limits(time_budget_s=0.9))
    state = w.run()
    left_out = [i for i, it in state.items.items() if it.state is ev.ItemStateName.SKIPPED]
    assert "b" in left_out and state.phase == "finished"
    child = w.fork(len(w.log), limits={"time_budget_s": 60.0})
    assert child.state.waves and not nothing_left(child.state)
    state = child.run()
    assert {it.state for it in state.items.values()} == {ev.ItemStateName.COMPLETED}
    assert child.sent.count("verify") == 1
    assert replay(child.log).difference is None


def test_a_cancelled_run_goes_on_where_it_was_cancelled() -> None:
    w = World(items=[item("a"), item("b")])

    def cancel(state: RunState, p: Pending) -> Result | None:
        if p.kind == "evaluate" and p.item_id == "a" and not state.cancel:
            w.append(ev.CancelRequested(reason="enough"), actor="person")
        return None

    w.create()
    w.override = cancel
    assert w.run().items["b"].state is ev.ItemStateName.SKIPPED
    child = w.fork(len(w.log))
    state = child.run()
    assert (state.phase, state.items["b"].state) == ("finished", "completed")


def test_a_failed_run_goes_on_after_its_last_event() -> None:
    w = World(items=[item("a")])

    def fails(state: RunState, p: Pending) -> Result | None:
        if p.kind != "verify":
            return None
        return Failed(command_id=p.command_id, reason="unavailable", message="gone", retryable=True)

    w.create()
    w.override = fails
    assert w.run().phase == "failed"
    child = w.fork(len(w.log))
    assert not nothing_left(child.state)
    # Tries are counted anew: twice more is not too often.
    child.override = lambda state, p: fails(state, p) if child.sent.count("verify") < 3 else None
    state = child.run()
    assert (state.phase, state.reason, state.failure) == ("finished", "", "")
    assert "apply" not in child.sent and state.items["a"].state is ev.ItemStateName.COMPLETED


def test_an_item_under_which_the_run_failed_is_worked_again() -> None:
    w = World(items=[item("a"), item("b")], verdicts={("a", 1): Outcome.FAIL}, ladders={"a": [candidate("a")]})

    def fails(state: RunState, p: Pending) -> Result | None:
        if p.kind != "restore":
            return None
        return Failed(command_id=p.command_id, reason="unavailable", message="gone")

    w.create()
    w.override = fails
    state = w.run()
    assert state.phase == "failed" and {i.state for i in state.items.values()} == {"escalated", "skipped"}
    child = replace(w, verdicts={}).fork(len(w.log))
    state = child.run()
    assert state.phase == "finished"
    assert {i: (it.state.value, len(it.attempts)) for i, it in state.items.items()} == {
        "a": ("completed", 1),
        "b": ("completed", 1),
    }
    assert replay(child.log).difference is None


def test_after_the_end_of_a_finished_run_nothing_is_left_to_do() -> None:
    w = World(items=[item("a")])
    w.create()
    w.run()
    assert nothing_left(w.fork(len(w.log)).state)
    assert nothing_left(w.fork(at(w, "command_issued", kind="record")).state)
    assert not nothing_left(w.fork(at(w, "command_issued", kind="verify")).state)


def test_a_halted_run_leaves_alone_what_it_left_alone() -> None:
    w = World(
        items=[item("a"), item("b", depends_on=("a",)), item("c", depends_on=("b",))],
        worse_at_gates={1: "sshd is gone"},
    )
    w.create()
    state = w.run()
    assert state.halt and state.items["c"].state is ev.ItemStateName.SKIPPED
    assert nothing_left(w.fork(len(w.log)).state)


def test_a_fork_of_a_run_that_was_paused_goes_on() -> None:
    w = World(items=[item("a"), item("b")])
    w.create()
    w.run()
    child = w.fork(at(w, "item_closed", item_id="a"))
    child.append(ev.PauseRequested(by="ann"), actor="person:ann")
    again = child.fork(len(child.log), generation=child.state.generation)
    assert not again.state.paused
    assert again.run().phase == "finished"


def test_a_fork_before_the_first_generation_goes_back_to_it_where_it_was_taken() -> None:
    w, machine = ran(eventful())
    child = on(machine, w.fork(1))
    state = child.run()
    assert child.sent[:4] == ["acquire", "rewind", "snapshot", "discover"]
    assert state.phase == "finished" and sorted(machine.there) == kept(state)


def test_a_fork_of_a_dry_run_touches_nothing_either() -> None:
    w = World(items=[item("a")])
    w.create(dry_run=True)
    w.run()
    child = w.fork(at(w, "command_issued", kind="plan"))
    child.run()
    assert child.sent == ["acquire", "plan", "release"]


def test_a_generation_that_is_gone_ends_the_fork_with_the_reason() -> None:
    w = World(items=[item("a")])
    w.create()
    w.run()
    child = w.fork(at(w, "attempt_started") - 1)
    child.override = lambda state, p: (
        Failed(command_id=p.command_id, reason="not_found", message="no generation 0") if p.kind == "rewind" else None
    )
    state = child.run()
    assert (state.phase, state.reason) == ("failed", "rewind: not_found: no generation 0")
    assert child.sent == ["acquire", "rewind", "record", "release"]


@pytest.mark.parametrize("changes", [{"seq": 4}, {"generation": 7}, {"limits": {"max_tea": 3}}])
def test_a_fork_that_names_another_moment_or_an_unknown_bound_is_refused(changes: dict[str, Any]) -> None:
    w = World(items=[item("a")])
    w.create()
    w.run()
    with pytest.raises((IllegalEvent, ValueError)):
        w.fork(at(w, "item_closed"), **changes)


def test_another_model_decides_what_a_model_may_do_from_there_on() -> None:
    w = World(items=[item("a")], ladders={"a": []})
    w.create()
    assert w.run().items["a"].decided_by == ev.DecidedBy.NO_FIX
    fixed = candidate("a", source=FixSource.MODEL)
    child = replace(w, proposals=[fixed]).fork(at(w, "item_closed") - 1, model_profile="big", model_may="author")
    state = child.run()
    assert state.spec is not None and state.spec.model_profile == "big"
    assert state.items["a"].state is ev.ItemStateName.COMPLETED


# --- people's word ----------------------------------------------------------------------------------------------------


def asking() -> World:
    risky = candidate("a", mutability=Mutability.DESTRUCTIVE)
    return World(items=[item("a"), item("b")], ladders={"a": [risky], "b": [candidate("b")]})


def to_the_question(w: World) -> World:
    for _ in range(500):
        payloads = decide(w.state, w.now)
        for payload in payloads:
            w.append(payload)
        if not payloads and not w.state.pending:
            return w
        if not payloads:
            w.answer_one()
    raise AssertionError("it never waits")


def answer(w: World, *, granted: bool = True) -> None:
    ((item_id, asked),) = approvals.open_questions(w.state).items()
    word = ev.ApprovalAnswered(
        item_id=item_id, attempt=asked.attempt, action_hash=asked.action_hash, granted=granted, by="ann"
    )
    w.append(word, actor="person:ann")


@pytest.mark.parametrize("moment", ["approval_asked", "approval_answered", "attempt_started"])
def test_what_a_person_agreed_to_in_the_other_run_is_asked_again(moment: str) -> None:
    w = asking()
    w.create()
    answer(to_the_question(w))
    w.run()
    seq = at(w, moment, item_id="a")
    child = to_the_question(w.fork(seq))
    assert [a.state for a in child.state.items["a"].approvals] == ["void", "asked"]
    assert not child.state.items["a"].attempts
    answer(child)
    state = child.run()
    assert [a.state for a in state.items["a"].approvals] == ["void", "granted"]
    assert state.items["a"].state is ev.ItemStateName.COMPLETED
    assert replay(child.log).difference is None


def test_what_was_agreed_to_and_then_cancelled_is_asked_again() -> None:
    w = asking()
    w.create()
    to_the_question(w)
    w.append(ev.PauseRequested(by="ann"), actor="person:ann")
    answer(w)
    w.append(ev.CancelRequested(reason="enough"), actor="person:ann")
    assert w.run().items["a"].state is ev.ItemStateName.SKIPPED
    child = to_the_question(w.fork(len(w.log)))
    assert [a.state for a in child.state.items["a"].approvals] == ["void", "asked"]
    assert not child.state.items["a"].attempts


def test_a_word_that_was_used_up_stays_in_the_story_and_a_refusal_stays_a_refusal() -> None:
    w = asking()
    w.create()
    answer(to_the_question(w))
    w.run()
    after = w.fork(at(w, "item_closed", item_id="a")).state
    assert [a.state for a in after.items["a"].approvals] == ["granted"]
    w = asking()
    w.create()
    answer(to_the_question(w), granted=False)
    child = w.fork(len(w.log))
    state = child.run()
    assert not state.items["a"].attempts and "denied by ann" in state.items["a"].reason
