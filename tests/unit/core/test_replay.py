"""Replay: the same log decides the same, and every change of log or rules shows where it begins."""

from typing import Any

import pytest
from anneal_contracts.facts import DeclaredMode, FixSource, Outcome
from anneal_core import events as ev
from anneal_core import issue
from anneal_core.chain import Event
from anneal_core.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.world import World, candidate, item


def finished(**limits: Any) -> World:
    w = World(
        items=[item("a"), item("b", depends_on=("a",)), item("c"), item("d")],
        ladders={
            **{i: [candidate(i, 0), candidate(i, 1)] for i in "ab"},
            **{i: [candidate(i, source=FixSource.RECALLED)] for i in "cd"},
        },
        verdicts={("a", 1): Outcome.FAIL, ("b", 1): Outcome.FAIL},
        gates={("a", 1): Outcome.FAIL},
        modes={("b", 1): "boot"},
        policy={"modes": (DeclaredMode(name="boot", response="defer"),)},
    )
    w.create(limits=ev.Limits(**limits))
    w.run()
    return w


def test_a_finished_run_decides_the_same_again() -> None:
    w = finished(max_group=8)
    found = replay(w.log)
    assert found.difference is None
    assert found.state == w.state
    assert found.decisions == sum(e.actor == "engine" for e in w.log) > 30


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_run_of_the_old_engine_is_decided_by_the_old_rules(data: st.DataObject) -> None:
    failing = data.draw(st.sets(st.tuples(st.sampled_from("abc"), st.integers(1, 2))))
    w = World(items=[item(i) for i in "abc"], verdicts=dict.fromkeys(failing, Outcome.FAIL))
    w.create(engine=1)
    w.run()
    assert replay(w.log).difference is None


def test_every_prefix_of_a_log_replays() -> None:
    log = finished().log
    assert all(replay(log[:n]).difference is None for n in range(0, len(log), 7))


def test_changed_rules_show_where_they_part_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = finished().log
    monkeypatch.setitem(issue._PATIENCE, "plan", 1.0)
    found = replay(log).difference
    assert found is not None
    first = next(e for e in log if e.payload.get("kind") == "plan")
    assert found.seq == first.seq
    assert found.reason == "the engine decides another command_issued"
    assert any(line.startswith('+ "deadline"') for line in found.diff.splitlines())


def changed(log: list[Event], seq: int, **payload: Any) -> list[Event]:
    event = log[seq - 1]
    return [*log[: seq - 1], event.model_copy(update={"payload": {**event.payload, **payload}}), *log[seq:]]


def test_a_decision_that_nobody_would_make_is_found() -> None:
    log = finished().log
    started = next(e for e in log if e.type == "attempt_started")
    found = replay(changed(log, started.seq, item_id="c")).difference
    assert found is not None and found.seq == started.seq


def test_a_decision_that_is_missing_is_found() -> None:
    log = finished().log
    ended = next(e for e in log if e.type == "attempt_ended")
    rest = [e.model_copy(update={"seq": e.seq - 1}) for e in log[ended.seq :]]
    assert replay([*log[: ended.seq - 1], *rest]).difference is not None


def test_what_is_no_event_at_all_is_a_difference_and_no_crash() -> None:
    log = finished().log
    found = replay(changed(log, 1, type="nonsense")).difference
    assert found is not None and found.seq == 1
