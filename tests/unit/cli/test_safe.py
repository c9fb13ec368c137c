"""What a target wrote is shown, and does nothing."""

from anneal.supervisor.v1.supervisor_pb2 import Attempt, Item, Run
from anneal_cli.safe import make_visible, visible


def test_an_escape_sequence_is_shown_and_not_carried_out() -> None:
    assert visible("a\x1b[2Jb\x07\x7f\x9bc") == "a\u241b[2Jb\u2407\u2421\\x9bc"


def test_lines_and_tabs_stay() -> None:
    assert visible("one\n\ttwo") == "one\n\ttwo"


def test_every_string_of_a_run_is_made_visible() -> None:
    run = Run(run_id="r", notes=["\x1b]0;owned\x07"], items=[Item(id="i", attempts=[Attempt(output="\x1b[31mred")])])
    run.artifacts["arf"] = "abc"
    make_visible(run)
    assert "\x1b" not in str(run.notes[0])
    assert run.items[0].attempts[0].output == "\u241b[31mred"
    assert run.artifacts["arf"] == "abc"
