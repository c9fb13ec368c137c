"""The root of the command line: the list of commands and the options that all of them share."""

import click

from anneal_cli.exits import table
from anneal_cli.lazy import LazyGroup

_COMMANDS = "anneal_cli.commands"

COMMANDS: dict[str, tuple[str, str]] = {
    "dev": ("anneal_cli.dev.command:dev", "Start all of anneal on this machine; stop, status, logs."),
    "run": (f"{_COMMANDS}.run:run", "Run a skill against a target."),
    "runs": (f"{_COMMANDS}.runs:runs", "List the runs, newest first."),
    "watch": (f"{_COMMANDS}.watch:watch", "Watch a run: one cell per rule."),
    "show": (f"{_COMMANDS}.runs:show", "What a run came to: score, items, reasons."),
    "explain": (f"{_COMMANDS}.runs:explain", "One rule's story: what was tried, why, and what came of it."),
    "report": (f"{_COMMANDS}.runs:report", "Write a run's report: html, json, jsonl, ARF, CKLB."),
    "effects": (f"{_COMMANDS}.effects:effects", "What a run did to its target, and what nobody knows the end of."),
    "cancel": (f"{_COMMANDS}.runs:cancel", "Cancel a run between two steps."),
    "pause": (f"{_COMMANDS}.control:pause", "Hold a run up after the attempt that is under way."),
    "resume": (f"{_COMMANDS}.control:resume", "Let a paused run go on where it stood."),
    "approvals": (f"{_COMMANDS}.control:approvals", "Destructive actions that want a person's word."),
    "replay": (f"{_COMMANDS}.control:replay", "Decide a run's log again, and show where it differs."),
    "fork": (f"{_COMMANDS}.fork:fork", "A new run from a moment of another one, on the target of that moment."),
    "audit": (f"{_COMMANDS}.audit:audit", "Check a run's event log: hash chain and fold."),
    "queue": (f"{_COMMANDS}.queue:queue", "What waits for a doer; messages that were given up."),
    "target": (f"{_COMMANDS}.target:target", "Add, list, test and remove targets."),
    "skills": (f"{_COMMANDS}.skills:skills", "List the skills and their profiles."),
    "lab": (f"{_COMMANDS}.lab:lab", "Build and boot the disposable machine to practise on."),
    "bench": (f"{_COMMANDS}.bench:bench", "Measure what the tool does that people use without anneal."),
    "doctor": (f"{_COMMANDS}.doctor:doctor", "Check this machine; say what is missing and how to mend it."),
}

EPILOG = (
    "RUN is a run's id, a unique beginning of it, or 'last'. Every command takes --json.\n\n"
    "\b\nExit codes:\n" + "\n".join(f"  {line}" for line in table().splitlines())
)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="anneal-cli", prog_name="anneal")
@click.option(
    "--home", metavar="DIR", envvar="ANNEAL_HOME", help="Data folder (ANNEAL_HOME; default ~/.local/share/anneal)."
)
@click.pass_context
def cli(ctx: click.Context, home: str | None) -> None:
    """Hardens and repairs machines step by step: a deterministic system with a model inside it.

    \b
    First steps:  anneal doctor
                  anneal dev                 (in a second terminal, or --detach)
                  anneal lab build && anneal lab up && anneal target add lab --lab lab
                  anneal run stig-rhel9 --target lab --watch
    """
    ctx.obj = home
