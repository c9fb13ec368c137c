"""The waffle fits every terminal, shows every rule, and can be read without colour."""

import io

import pytest
from anneal.supervisor.v1.supervisor_pb2 import Run
from anneal_cli.text import STATES
from anneal_cli.watch.waffle import Waffle, activity
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from tests.support.sample_run import sample_run

GLYPHS = {state: glyph for state, (glyph, _) in STATES.items()}


def rendered(run: Run, *, width: int = 80, height: int = 24, encoding: str = "utf-8", colour: bool = False) -> str:
    sink = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    system = "truecolor" if colour else None
    console = Console(file=sink, width=width, height=height, force_terminal=colour, color_system=system)  # type: ignore[arg-type]
    console.print(Waffle(run=run, doing="applying", last="completed ssh_rule_03 by vendor"))
    sink.flush()
    raw = sink.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode(encoding)


def test_250_rules_fit_80_columns_and_24_lines() -> None:
    lines = rendered(sample_run(done=0.6)).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) <= 24


@pytest.mark.parametrize("done", [0.0, 0.3, 0.6, 1.0])
def test_every_rule_has_a_cell(done: float) -> None:
    run = sample_run(done=done)
    cells = "".join(line[17:] for line in rendered(run, width=200, height=60).splitlines()[1:-5])
    for state, glyph in GLYPHS.items():
        wanted = sum(1 for item in run.items if item.state == state and item.id not in run.regressions)
        assert cells.count(glyph) == wanted, state


def test_categories_are_named_once_and_in_order() -> None:
    run = sample_run(done=0.5)
    first_words = [line.split()[0] for line in rendered(run).splitlines()[1:14] if line[:1].strip()]
    categories = list(dict.fromkeys(item.category for item in run.items))
    assert [word for word in first_words if word in categories] == categories


def test_states_differ_without_colour_and_in_ascii() -> None:
    assert len(set(GLYPHS.values())) == len(GLYPHS)
    text = rendered(sample_run(done=0.6), encoding="ascii")
    legend = next(line for line in text.splitlines() if "completed" in line and "queued" in line)
    assert "#" in legend
    assert "." in legend


def test_colours_are_those_of_the_design() -> None:
    waffle = {state: style for state, (_, style) in STATES.items()}
    assert waffle["completed"] == "green"
    assert "cyan" in waffle["active"]
    assert "orange" in waffle["escalated"]
    assert waffle["deferred"] == "blue"
    assert waffle["queued"] == "bright_black"
    assert "\x1b[" in rendered(sample_run(done=0.6), colour=True)


def test_a_regressed_rule_is_marked_even_though_its_item_completed() -> None:
    run = sample_run()
    run.regressions[:] = [run.items[0].id]
    assert "✗" in rendered(run)
    assert "regressed 1" in rendered(run)


def test_the_activity_names_item_attempt_rung_and_step() -> None:
    run = sample_run(done=0.6)
    line = activity(run, "applying")
    active = next(item.id for item in run.items if item.state == "active")
    assert line == f"{active}  attempt 1/3  vendor  applying"


def test_trouble_takes_the_place_of_the_activity() -> None:
    console = Console(file=io.StringIO(), width=80, height=24)
    waffle = Waffle(run=sample_run(done=0.6), doing="applying", trouble="no answer from 127.0.0.1:7400")
    with console.capture() as capture:
        console.print(waffle)
    assert "now   no answer from 127.0.0.1:7400" in capture.get()


def test_a_run_without_items_says_so() -> None:
    assert "being looked at" in rendered(Run(run_id="x", state="discovering"))
    assert "no items" in rendered(Run(run_id="x", state="finished"))


@given(width=st.integers(20, 220), height=st.integers(8, 60), done=st.sampled_from([0.0, 0.4, 1.0]))
def test_any_terminal_is_respected(width: int, height: int, done: float) -> None:
    lines = rendered(sample_run(done=done), width=width, height=height).splitlines()
    assert max(Text(line).cell_len for line in lines) <= width


def test_a_low_terminal_gets_the_flowing_form() -> None:
    run = sample_run(done=0.3)
    assert len(rendered(run, width=80, height=14).splitlines()) <= 14
    assert len(rendered(run, width=80, height=14).splitlines()) < len(rendered(run, width=80, height=30).splitlines())
