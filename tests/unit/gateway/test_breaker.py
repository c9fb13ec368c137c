"""The circuit breaker on a clock that stands still."""

import pytest
from anneal_gateway.breaker import Breaker, CircuitState
from anneal_gateway.errors import CircuitOpen
from anneal_runtime.clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st


def _breaker(clock: FakeClock) -> Breaker:
    return Breaker("up", clock, failures=3, slow_call_s=10, open_s=15)


def _state(breaker: Breaker) -> CircuitState:
    return breaker.state


def _fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().failed("no answer")


def test_it_opens_after_so_many_failures_in_a_row_and_says_how_long_to_wait() -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    _fail(breaker, 2)
    breaker.admit().answered()
    _fail(breaker, 2)
    assert _state(breaker) is CircuitState.CLOSED
    _fail(breaker)
    assert _state(breaker) is CircuitState.OPEN
    clock.advance(5)
    with pytest.raises(CircuitOpen, match="no answer") as caught:
        breaker.admit()
    assert caught.value.details["retry_after_s"] == "10.0"


def test_half_open_lets_one_probe_through_and_its_success_closes_it() -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    _fail(breaker, 3)
    clock.advance(15)
    assert _state(breaker) is CircuitState.HALF_OPEN
    probe = breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    probe.answered()
    assert _state(breaker) is CircuitState.CLOSED
    # It starts afresh: one failure is not three.
    _fail(breaker)
    assert _state(breaker) is CircuitState.CLOSED


def test_each_failed_probe_doubles_the_pause_up_to_eightfold() -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    _fail(breaker, 3)
    pauses = []
    pause = 15.0
    for _ in range(5):
        clock.advance(pause)
        _fail(breaker)
        with pytest.raises(CircuitOpen) as caught:
            breaker.admit()
        pause = float(caught.value.details["retry_after_s"])
        pauses.append(pause)
    assert pauses == [30, 60, 120, 120, 120]


def test_a_probe_that_never_happened_leaves_room_for_the_next() -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    _fail(breaker, 3)
    clock.advance(15)
    breaker.admit().withdrawn()
    breaker.admit().answered()
    assert _state(breaker) is CircuitState.CLOSED


def test_slow_answers_count_as_failures() -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    for _ in range(3):
        permit = breaker.admit()
        clock.advance(11)
        permit.answered()
    assert _state(breaker) is CircuitState.OPEN


def test_a_call_from_before_the_opening_does_not_close_it() -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    early = breaker.admit()
    _fail(breaker, 3)
    early.answered()
    assert _state(breaker) is CircuitState.OPEN


def test_a_call_ends_once() -> None:
    breaker = _breaker(FakeClock())
    permit = breaker.admit()
    permit.answered()
    for _ in range(5):
        permit.failed("later")
    assert _state(breaker) is CircuitState.CLOSED


@given(st.lists(st.sampled_from(["ok", "fail", "withdraw", "wait"]), max_size=60))
def test_whatever_happens_it_never_refuses_for_ever(steps: list[str]) -> None:
    clock = FakeClock()
    breaker = _breaker(clock)
    for step in steps:
        if step == "wait":
            clock.advance(20)
            continue
        try:
            permit = breaker.admit()
        except CircuitOpen:
            continue
        {"ok": permit.answered, "fail": lambda: permit.failed("x"), "withdraw": permit.withdrawn}[step]()  # noqa: B023
    clock.advance(8 * 15)
    breaker.admit().answered()
    assert _state(breaker) is CircuitState.CLOSED
