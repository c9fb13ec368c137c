"""Attempts read from a log: where each begins and ends, of which kind it is, and where its time went."""

from collections.abc import Mapping
from typing import Any

import pytest

from bench import harness
from bench.figures import BenchError
from bench.stub.model import answer
from bench.stub.skills.stub.runtime import SCRIPTS, kind

Event = dict[str, Any]


def event(at: float, type: str, **payload: Any) -> Event:
    return {"at": at, "type": type, "payload": payload}


def command(at: float, until: float, kind: str, took_s: float = 0.0, **result: Any) -> list[Event]:
    """A command that was given out and answered."""
    name = f"{kind}@{at}"
    finished = event(until, "command_finished", command_id=name, result={"took_s": took_s, **result})
    return [event(at, "command_issued", command_id=name, kind=kind), finished]


def kept(at: float, by: float) -> list[Event]:
    return [
        *command(at, at + 4, "apply", 1),
        *command(at + 5, at + 7, "evaluate", 0.5),
        *command(at + 7, at + 8, "snapshot"),
        event(by, "attempt_ended", ending="kept"),
        event(by, "item_closed"),
    ]


def found(events: list[Event]) -> list[tuple[str, float]]:
    return [(span.kind, span.seconds) for span in harness.spans(events)]


def test_attempts_fill_the_loop_and_the_last_of_an_item_ends_with_it() -> None:
    log = [event(10, "items_queued"), *kept(12, 21), *kept(22, 32)]
    log[-1]["at"] = 33
    assert found(log) == [("kept", 11), ("kept", 12)]


def test_what_is_no_way_and_no_doers_time_is_select() -> None:
    (span,) = harness.spans([event(10, "items_queued"), *kept(12, 21)])
    assert span.parts == {
        "apply_doer": 1,
        "apply_way": 3,
        "evaluate_doer": 0.5,
        "evaluate_way": 1.5,
        "keep_doer": 0,
        "keep_way": 1,
        "select": 4,
    }


def test_a_reverted_attempt_is_told_from_a_kept_one_and_model_turns_have_kinds_of_their_own() -> None:
    log = [
        event(0, "items_queued"),
        *command(0, 4, "apply", 1),
        event(5, "attempt_ended", ending="reverted"),
        *command(5, 8, "propose", 1, candidate=None),
        *command(8, 9, "propose", 1, candidate={"hash": "x"}),
        *kept(9, 20),
    ]
    assert found(log) == [("reverted", 5), ("turn", 3), ("model", 12)]


def test_a_reflection_beside_the_line_is_no_part_of_an_attempt() -> None:
    log = [event(0, "items_queued"), *command(0, 3, "reflect", 1), *kept(3, 12)]
    (span,) = harness.spans(log)
    assert span.parts["select"] == 12 - 7


def closed(states: Mapping[str, str]) -> list[Event]:
    return [event(1, "item_closed", item_id=i, state=s, reason="") for i, s in states.items()]


@pytest.mark.parametrize("state", ["completed", "escalated"])
def test_a_run_that_ended_otherwise_than_it_should_is_not_measured(state: str) -> None:
    right = {"kept-000": "completed", "given-up-019": "escalated"}
    with pytest.raises(BenchError, match="of 2 items ended otherwise" if state == "escalated" else "these attempts"):
        harness._check(closed({**right, "kept-000": state}), [])


def test_of_twenty_items_each_ends_as_its_name_says() -> None:
    kinds = [kind(n) for n in range(40)]
    assert {k: kinds.count(k) for k in SCRIPTS} == {"kept": 32, "second": 4, "model": 2, "given-up": 2}


@pytest.mark.parametrize(("item", "able"), [("model-018", True), ("given-up-019", False)])
def test_the_stub_model_writes_a_script_only_where_it_shall(item: str, able: bool) -> None:
    body = {
        "response_format": {"json_schema": {"name": "ActionProposal"}},
        "messages": [{"role": "user", "content": f"The item.\nId: {item}\nTitle: x"}],
    }
    text = answer(body)["choices"][0]["message"]["content"]
    assert (f"/etc/stub.d/{item}.conf" in text) is able
