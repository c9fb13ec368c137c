"""Figures, their percentiles, the table and the file."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Figure, Peer, Scale, document, percentile, spread, table, timed, write

MACHINE = {"cpu": "x", "cores": 2, "memory_mb": 1000, "kernel": "6", "load": 0.1, "busy": 0.0}


def figure(*values: float, goal: dict[str, float] | None = None, peer: Peer | None = None) -> Figure:
    return Figure(name="verdict_s", unit="s", values=values, goal=goal, peer=peer)


@pytest.mark.parametrize(("p", "found"), [(50, 50.0), (90, 90.0), (99, 99.0), (100, 100.0)])
def test_percentiles_of_a_hundred_values_are_those_of_their_rank(p: float, found: float) -> None:
    assert percentile([float(i) for i in range(100, 0, -1)], p) == found


def test_a_percentile_of_few_values_is_one_of_them_and_of_none_is_none() -> None:
    assert percentile([3.0, 1.0], 50) == 1.0
    assert percentile([3.0, 1.0], 99) == 3.0
    assert percentile([7.0], 50) == 7.0
    assert percentile([], 50) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_was_measured_and_enough_values_do_not_exceed_it(values: list[float], p: float) -> None:
    found = percentile(values, p)
    assert found in values
    assert found is not None
    assert sum(v <= found for v in values) >= math.ceil(p / 100 * len(values))


def test_a_file_has_the_promised_form_with_null_for_what_there_is_not(tmp_path: Path) -> None:
    peer = Peer(what="stock", values=(3.0, 4.0, 2.0))
    figures = [figure(0.03, 0.05, goal={"p50": 0.06}, peer=peer), Figure(name="revert_s", unit="s", values=())]
    path = write(document("verdict", MACHINE, "abc", figures), out=tmp_path / "out")
    assert path == tmp_path / "out" / "verdict.json"
    assert json.loads(path.read_text()) == {
        "name": "verdict",
        "machine": MACHINE,
        "commit": "abc",
        "figures": {
            "verdict_s": {
                "p50": 0.03,
                "p90": 0.05,
                "p99": 0.05,
                "n": 2,
                "unit": "s",
                "goal": {"p50": 0.06},
                "peer": {"what": "stock", "p50": 3.0, "p90": 4.0, "n": 3},
            },
            "revert_s": {"p50": None, "p90": None, "p99": None, "n": 0, "unit": "s", "goal": None, "peer": None},
        },
    }
    assert [p.name for p in path.parent.iterdir()] == ["verdict.json"]


def test_a_quick_file_does_not_take_the_place_of_the_real_one(tmp_path: Path) -> None:
    real = write(document("start", MACHINE, "abc", [figure(1.0)]), out=tmp_path)
    quick = write(document("start", MACHINE, "abc", [figure(9.0)]), quick=True, out=tmp_path)
    assert (real.name, quick.name) == ("start.json", "start.quick.json")
    assert json.loads(real.read_text())["figures"]["verdict_s"]["p50"] == 1.0


@pytest.mark.parametrize(
    ("values", "goal", "met"),
    [
        ((0.05, 0.06, 0.14), {"p50": 0.06, "p90": 0.15}, True),
        ((0.05, 0.06, 0.16), {"p50": 0.06, "p90": 0.15}, False),
        ((0.05, 0.07, 0.14), {"p50": 0.06, "p90": 0.15}, False),
        ((9.9, 10.0), {"p99": 10.0}, True),
        ((1.0,), None, None),
        ((), {"p50": 1.0}, None),
    ],
)
def test_a_goal_is_met_when_all_its_bounds_are_held(
    values: tuple[float, ...], goal: dict[str, float] | None, met: bool | None
) -> None:
    assert figure(*values, goal=goal).met() is met


def test_a_goal_for_a_percentile_that_nobody_computes_is_refused() -> None:
    with pytest.raises(ValueError, match="p95"):
        figure(1.0, goal={"p95": 1.0})


def test_the_table_says_what_was_met_what_was_missed_and_what_the_peer_is() -> None:
    peer = Peer(what="stock oscap", values=(2.5, 3.5))
    other = Figure(name="rss_mb", unit="MB", values=(812.0,), goal={"p99": 700.0}, peer=peer)
    lines = table([figure(0.0341, 0.0772, goal={"p50": 0.06}, peer=peer), other]).splitlines()
    assert lines[0].split()[:6] == ["figure", "n", "p50", "p90", "p99", "unit"]
    assert lines[1].split()[:6] == ["verdict_s", "2", "0.034", "0.077", "0.077", "s"]
    assert "p50 <= 0.06: met" in lines[1]
    assert lines[1].endswith("2.500 / 3.500")
    assert "p99 <= 700: MISSED" in lines[2]
    assert lines[3:] == ["peer of verdict_s, rss_mb: stock oscap (n=2)"]


def test_a_figure_without_values_goal_and_peer_shows_dashes() -> None:
    row = table([figure()]).splitlines()[1]
    assert row.split() == ["verdict_s", "0", "-", "-", "-", "s", "-", "-"]


def test_a_sample_is_even_and_never_larger_than_what_there_is() -> None:
    things = [str(i) for i in range(10)]
    assert spread(things, 5) == ["0", "2", "4", "6", "8"]
    assert spread(things, 3) == ["0", "3", "6"]
    assert spread(things, 99) == things


def test_a_block_that_raises_is_not_measured() -> None:
    took: list[float] = []
    with timed(took):
        pass
    with pytest.raises(RuntimeError), timed(took):
        raise RuntimeError
    assert len(took) == 1
    assert took[0] >= 0


def test_a_quick_scale_measures_less() -> None:
    assert (Scale().count(12, 2), Scale(quick=True).count(12, 2)) == (12, 2)
