"""Paired rounds: who goes first takes turns, the first round is forgotten, and ratios are of one round each."""

import pytest

from bench.durable import Round, compared, paired
from bench.figures import Figure


def test_sides_take_turns_in_going_first_and_the_round_that_warms_up_is_forgotten() -> None:
    called: list[str] = []

    def side(name: str, seconds: float) -> Round:
        called.append(name)
        return Round(ms=[seconds], seconds=seconds)

    pairs = paired(lambda f, s: side("ours", 1.0), lambda f, s: side("theirs", 2.0), rounds=3, flows=1, steps=1)
    assert called == ["theirs", "ours", "ours", "theirs"] * 2
    assert [(ours.seconds, theirs.seconds) for ours, theirs in pairs] == [(1.0, 2.0)] * 3


def test_a_ratio_is_of_the_two_halves_of_one_round() -> None:
    ours = [Round(ms=[1.0, 2.0], seconds=0.5), Round(ms=[3.0, 4.0], seconds=1.0)]
    theirs = [Round(ms=[4.0, 8.0], seconds=2.0), Round(ms=[10.0, 10.0], seconds=2.0)]
    found = {f.name: f for f in compared(list(zip(ours, theirs, strict=True)), "")}
    assert found["rate_ratio_to_dbos"].values == (4.0, 2.0)
    assert found["p99_ratio_to_dbos"].values == (0.25, 0.4)
    assert found["steps_per_s"].values == (4.0, 2.0)
    assert found["step_ms"].peer is not None
    assert found["step_ms"].peer.values == (4.0, 8.0, 10.0, 10.0)


@pytest.mark.parametrize(("value", "met"), [(4.0, True), (3.9, False)])
def test_a_goal_may_be_the_least_that_a_figure_is(value: float, met: bool) -> None:
    assert Figure(name="x", unit="x", values=(value,), goal={"p50": 4.0}, at_least=True).met() is met
