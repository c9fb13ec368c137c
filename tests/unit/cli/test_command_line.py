"""The command line itself: quick help, one meaning per exit code, errors that name field and next step."""

import contextlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from anneal_cli import exits
from anneal_cli.__main__ import run
from anneal_cli.commands.run import duration_s, exclusion
from anneal_cli.commands.runs import format_of, write_whole
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import translate
from anneal_cli.home import Home
from anneal_cli.root import COMMANDS, cli
from anneal_runtime import errors
from hypothesis import given
from hypothesis import strategies as st

HEAVY = ("grpc", "rich", "pydantic", "google.protobuf", "opentelemetry", "psutil", "asyncio")


def all_commands() -> dict[str, click.Command]:
    """Every command by its full name, groups included."""
    found: dict[str, click.Command] = {}

    def walk(prefix: str, command: click.Command) -> None:
        found[prefix] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk(f"{prefix} {name}", child)

    walk("anneal", cli)
    return found


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from anneal_cli.__main__ import run; run(['--help']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr.strip() == "[]"
    assert "anneal doctor" in done.stdout


def test_the_one_line_helps_agree_with_the_commands() -> None:
    for name, command in all_commands().items():
        assert command.help, name
    assert set(COMMANDS) == {name.split()[1] for name in all_commands() if " " in name}


def test_every_command_that_answers_takes_json() -> None:
    # A shell is for people alone; groups answer nothing.
    for name, command in all_commands().items():
        if isinstance(command, click.Group) or name == "anneal lab ssh":
            continue
        assert "--json" in [option for p in command.params for option in p.opts], name


def test_root_help_shows_the_whole_table_of_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for code in ExitCode:
        assert f"{code.value:>3}  {exits.MEANING[code]}" in text


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["run"],
        ["run", "x", "--target", "t", "--limit", "0"],
        ["run", "x", "--target", "t", "--limit", "1", "--item", "r"],
        ["run", "x", "--target", "t", "--time-budget", "soon"],
        ["run", "x", "--target", "t", "--exclude", "rule"],
        ["report", "x", "-o", "report.docx"],
        ["runs", "--gateway", "nowhere"],
        ["target", "add", "x"],
        ["target", "add", "x", "--ssh", "no-user", "--key", "/dev/null"],
        ["target", "add", "x", "--ssh", "u@h"],
        ["audit", "verify"],
        ["dev", "--model-url", "http://x/v1"],
        ["dev", "--model", "gpt-99"],
    ],
)
def test_bad_input_ends_with_2_and_a_next_step(
    argv: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANNEAL_HOME", str(tmp_path))
    assert run(argv) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert err.startswith("anneal: ")
    assert "  next: " in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


def test_an_error_names_its_field_once() -> None:
    assert CliError(message="bad", field="--target", hint="do").lines() == ["anneal: bad [--target]", "  next: do"]
    assert CliError(message="--target is bad", field="--target").lines() == ["anneal: --target is bad"]


def test_a_defect_of_ours_is_one_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli, "main", broken)
    assert run(["runs"]) == ExitCode.NOT_HELD
    assert "unexpected ZeroDivisionError: by zero" in capsys.readouterr().err


CODES = {
    errors.InvalidArgument: ExitCode.USAGE,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.AlreadyExists: ExitCode.CONFLICT,
    errors.FailedPrecondition: ExitCode.CONFLICT,
    errors.Conflict: ExitCode.CONFLICT,
    errors.Leased: ExitCode.CONFLICT,
    errors.PermissionDenied: ExitCode.UNREACHABLE,
    errors.Unauthenticated: ExitCode.UNREACHABLE,
    errors.Unavailable: ExitCode.UNREACHABLE,
    errors.DeadlineExceeded: ExitCode.UNREACHABLE,
    errors.TargetUnreachable: ExitCode.NOT_HELD,
    errors.HostKeyChanged: ExitCode.NOT_HELD,
    errors.Internal: ExitCode.NOT_HELD,
    errors.DataLoss: ExitCode.NOT_HELD,
}


@pytest.mark.parametrize("kind", CODES)
def test_each_error_has_its_exit_code(kind: type[errors.AnnealError], tmp_path: Path) -> None:
    found = translate(kind("no", field="target"), home=Home(root=tmp_path), address="127.0.0.1:7400")
    assert found.code is CODES[kind]
    assert found.field == "target"


def test_a_missing_target_is_told_where_targets_are_listed(tmp_path: Path) -> None:
    found = translate(errors.NotFound("no", field="target"), home=Home(root=tmp_path), address="x:1")
    assert found.hint == "anneal target list lists them"


def test_the_server_s_own_next_step_wins(tmp_path: Path) -> None:
    error = errors.FailedPrecondition("no image", details={"hint": "anneal lab build"})
    assert translate(error, home=Home(root=tmp_path), address="x:1").hint == "anneal lab build"


@pytest.mark.parametrize(("text", "wanted"), [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400)])
def test_durations_are_read(text: str, wanted: float) -> None:
    assert duration_s(text) == wanted


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_any_written_duration_is_read_back(hours: int, minutes: int, secs: int) -> None:
    assert duration_s(f"{hours}h{minutes}m{secs}s") == hours * 3600 + minutes * 60 + secs


@given(st.text(max_size=8))
def test_a_duration_is_a_number_above_zero_or_an_error(text: str) -> None:
    with contextlib.suppress(CliError):
        assert duration_s(text) > 0


def test_an_exclusion_keeps_equal_signs_in_its_reason() -> None:
    assert exclusion("rule_a= a=b") == ("rule_a", "a=b")


@pytest.mark.parametrize(
    ("name", "fmt"),
    [
        ("r.html", "html"),
        ("R.JSON", "json"),
        ("run.jsonl", "jsonl"),
        ("x.arf.xml", "arf"),
        ("x.ARF.xml.GZ", "arf"),
        ("x.cklb", "cklb"),
    ],
)
def test_a_report_s_format_follows_its_ending(name: str, fmt: str) -> None:
    assert format_of(Path(name)) == fmt


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    target.write_bytes(b"old")
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(CliError) as caught:
        write_whole(tmp_path / "no" / "r.html", b"new")
    assert caught.value.field == "--output"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html"]
