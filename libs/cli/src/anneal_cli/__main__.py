"""Entry point: runs a command and turns how it ended into lines on stderr and an exit code."""

import io
import os
import sys
from collections.abc import Sequence

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.root import cli


def run(argv: Sequence[str]) -> int:
    """Runs one command line (without the program's name). Returns the exit code; prints no traceback."""
    try:
        outcome = cli.main(args=list(argv), prog_name="anneal", standalone_mode=False)
    except CliError as e:
        _say(e.lines())
        return int(e.code)
    except click.exceptions.Abort:
        _say(["anneal: interrupted"])
        return int(ExitCode.INTERRUPTED)
    except click.ClickException as e:
        _say(_usage_lines(e))
        return int(ExitCode.USAGE)
    except KeyboardInterrupt:
        _say(["anneal: interrupted"])
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except Exception as e:
        if os.environ.get("ANNEAL_DEBUG"):
            raise
        _say(
            [
                f"anneal: unexpected {type(e).__name__}: {str(e)[:500]}",
                "  next: ANNEAL_DEBUG=1 shows where; see also: anneal doctor",
            ]
        )
        return int(ExitCode.NOT_HELD)
    return int(outcome) if isinstance(outcome, int) else int(ExitCode.OK)


def _usage_lines(error: click.ClickException) -> list[str]:
    message = error.format_message().rstrip(".")
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "anneal"
    return [f"anneal: {message}", f"  next: {path} --help"]


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line, err=True)


def main() -> None:
    """The `anneal` script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
