"""`anneal runs`, `show`, `explain`, `report`, `cancel`: what is known of runs."""

import contextlib
import os
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import as_data, console, emit_json, json_option, say

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway

# File ending -> report format; the longest ending that fits wins.
FORMATS = {".html": "html", ".json": "json", ".jsonl": "jsonl", ".arf.xml": "arf", ".arf": "arf", ".cklb": "cklb"}


@click.command()
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="How many."
)
@gateway_option
@json_option
@click.pass_obj
def runs(home_dir: str | None, gateway: str | None, limit: int, as_json: bool) -> int:
    """Lists the runs, newest first."""
    from anneal.supervisor.v1.supervisor_pb2 import ListRunsRequest

    from anneal_cli.views.show import print_runs

    async def work(gw: "Gateway") -> int:
        found = list((await gw.stub.ListRuns(ListRunsRequest(limit=limit))).runs)
        if as_json:
            emit_json([as_data(run) for run in found])
        else:
            print_runs(console(), found)
        return 0

    return call(home_dir, gateway, work)


@click.command()
@click.argument("run")
@gateway_option
@json_option
@click.pass_obj
def show(home_dir: str | None, gateway: str | None, run: str, as_json: bool) -> int:
    """Shows what RUN came to: score before and after, items by state with reasons, what each rung did.

    Regressions come first. With --json: the run's report document. A dry run shows its plan, scripts included.
    """
    from anneal_cli.views.dryrun import print_plan
    from anneal_cli.views.show import print_run

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        if as_json:
            content, _ = await gw.report(run_id, "json")
            click.echo(content.decode().rstrip())
            return 0
        found = await gw.exact_run(run_id)
        if found.spec.dry_run:
            await print_plan(console(), found, gw.blob)
        else:
            print_run(console(), found)
        return 0

    return call(home_dir, gateway, work)


@click.command()
@click.argument("run")
@click.argument("rule")
@gateway_option
@json_option
@click.pass_obj
def explain(home_dir: str | None, gateway: str | None, run: str, rule: str, as_json: bool) -> int:
    """Tells the story of RULE in RUN: what was tried and why, the scripts, the evidence, the verdicts, what a
    model planned, asked and learnt, and what decided the end.

    RULE may be a unique part of the rule's id.
    """
    from anneal_cli.safe import visible
    from anneal_cli.views.explain import explain_data, find_item, print_story

    async def work(gw: "Gateway") -> int:
        found = await gw.run(run)
        item = find_item(found, rule)
        names = {action.blob for action in [*item.plan, *(attempt.action for attempt in item.attempts)] if action.blob}
        names |= {probe.blob for probe in item.story.probes if probe.blob}
        scripts = {name: (await gw.blob(name)).decode(errors="replace") for name in sorted(names)}
        if as_json:
            emit_json(explain_data(found, item, scripts))
        else:
            print_story(console(), found, item, {name: visible(script) for name, script in scripts.items()})
        return 0

    return call(home_dir, gateway, work)


@click.command()
@click.argument("run")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write; its ending says the format: .html .json .jsonl .arf.xml .cklb, and .gz after it that it is"
    " packed. '-': stdout (with --format).",
)
@click.option("--format", "fmt", default=None, metavar="FORMAT", help="Format, where the ending does not say it.")
@gateway_option
@json_option
@click.pass_obj
def report(home_dir: str | None, gateway: str | None, run: str, output: Path, fmt: str | None, as_json: bool) -> int:
    """Writes RUN's report to a file, whole or not at all.

    Exit code 1 where the stored log is damaged: the error names the event, and nothing is written or shown from it. The
    same holds for show, explain and watch. With .jsonl the events are exported as they are, as far as they can be read.
    """
    from anneal_cli.packed import as_named

    wanted = fmt or format_of(output)

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        content, media_type = as_named(*await gw.report(run_id, wanted), output.name)
        if str(output) == "-":
            sys.stdout.buffer.write(content)
            return 0
        write_whole(output, content)
        said = {
            "run_id": run_id,
            "path": str(output),
            "format": wanted,
            "media_type": media_type,
            "bytes": len(content),
        }
        say(said, f"wrote {output} ({len(content):,} bytes, {media_type})", as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


def format_of(path: Path) -> str:
    """The format that a file's ending stands for. Raises CliError."""
    name = path.name.lower().removesuffix(".gz")
    fitting = [ending for ending in FORMATS if name.endswith(ending)]
    if not fitting:
        raise CliError(
            message=f"the ending of {path.name!r} names no format",
            code=ExitCode.USAGE,
            field="--output",
            hint=f"use one of {' '.join(FORMATS)}, or --format",
        )
    return FORMATS[max(fitting, key=len)]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. Raises CliError: no such folder, no right, no room."""
    temporary = ""
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        # mkstemp is private by default; a report is for others to read, as their umask allows.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as e:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise CliError(
            message=f"cannot write {path}: {e.strerror}",
            code=ExitCode.USAGE,
            field="--output",
            hint="choose a file in a folder that exists and that you may write",
        ) from e


@click.command()
@click.argument("run")
@click.option("--reason", default="asked for on the command line", show_default=True, help="Kept in the run's log.")
@gateway_option
@json_option
@click.pass_obj
def cancel(home_dir: str | None, gateway: str | None, run: str, reason: str, as_json: bool) -> int:
    """Cancels RUN between two steps: what is under way on the target ends and is judged first."""
    from anneal.supervisor.v1.supervisor_pb2 import CancelRunRequest

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        request = CancelRunRequest(idempotency_key=str(uuid.uuid4()), run_id=run_id, reason=reason)
        state = (await gw.stub.CancelRun(request)).state
        text = f"{run_id}: cancel asked for, now {state}\n  next: anneal watch {run_id}"
        say({"run_id": run_id, "state": state}, text, as_json=as_json)
        return 0

    return call(home_dir, gateway, work)
