"""The documents that describe the engine say what the code does."""

from pathlib import Path

import pytest
from anneal_contracts.facts import CoreMode
from anneal_core import machine, triage
from anneal_core.events import Ending, ItemStateName, Limits
from anneal_core.state import Phase

from tools import state_machine

TEXT = state_machine.DOCUMENT.read_text(encoding="utf-8")


def test_the_table_in_the_document_is_the_one_of_the_code() -> None:
    assert state_machine.with_tables(TEXT) == TEXT, "run: python tools/state_machine.py"


def test_a_changed_transition_changes_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.TRANSITIONS, "verify", (frozenset({Phase.IDLE}), Phase.VERIFYING))
    assert state_machine.with_tables(TEXT) != TEXT


def test_a_document_without_a_place_for_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        state_machine.with_tables("# nothing here\n")


def test_check_fails_on_a_stale_document_and_writing_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "state-machine.md"
    marks = [mark.format(name) for name in ("", " triage") for mark in (state_machine.BEGIN, state_machine.END)]
    stale.write_text("before\n{}\nold\n{}\n{}\nold\n{}\nafter\n".format(*marks), encoding="utf-8")
    monkeypatch.setattr(state_machine, "DOCUMENT", stale)
    monkeypatch.setattr("sys.argv", ["state_machine.py", "--check"])
    assert state_machine.main() == 1
    assert "python tools/state_machine.py" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["state_machine.py"])
    assert state_machine.main() == 0
    written = stale.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "| `verify` |" in written


def test_the_bounds_in_the_document_are_the_defaults_of_the_code() -> None:
    limits = Limits()
    for row in (
        f"| time of the run | {limits.time_budget_s / 60:g} min |",
        f"| steps of the run | {limits.max_steps} |",
        f"| attempts at an item, failed model turns included | {limits.max_attempts} |",
        f"| evaluator gaps at an item | {limits.max_gaps} |",
        f"| recalled scripts judged together | {limits.max_group}; the",
        f"| model's words on escalated items | {limits.max_reflections} a run |",
        f"| a person's word on a destructive action | {limits.approval_ttl_s / 60:g} min |",
        f"| rounds that mend what fails by our doing | {limits.repair_rounds} |",
        f"| tries of one command | {limits.command_tries} |",
    ):
        assert row in TEXT


def test_the_document_names_every_state_an_item_or_attempt_may_end_in() -> None:
    assert all(f"`{state.value}`" in TEXT for state in ItemStateName if state is not ItemStateName.ACTIVE)
    written = {Ending.KEPT, Ending.REVERTED, Ending.UNCHANGED}
    assert all(f"`{ending.value}`" in TEXT for ending in written)


def test_the_document_names_every_mode_that_triage_gives() -> None:
    source = Path(triage.__file__).read_text(encoding="utf-8")
    given = {mode for mode in CoreMode if f"CoreMode.{mode.name}" in source}
    assert len(given) >= 6
    assert all(f"`{mode.value}`" in TEXT for mode in given)
