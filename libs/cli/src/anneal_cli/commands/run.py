"""`anneal run`: builds the specification, checks what can be checked here, starts the run, watches it."""

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import json_option, say

if TYPE_CHECKING:
    from anneal.supervisor.v1.supervisor_pb2 import RunSpec

    from anneal_cli.gateway import Gateway

_MAX_TAILORING = 4 << 20


def duration_s(text: str) -> float:
    """Seconds of 90, 90s, 30m, 2h, 1h30m. Raises CliError."""
    from anneal_runtime.durations import seconds_of

    try:
        total = seconds_of(text)
    except ValueError as e:
        raise CliError(
            message=f"not a duration: {text!r}",
            code=ExitCode.USAGE,
            field="--time-budget",
            hint="for example 90s, 30m, 1h30m",
        ) from e
    if total <= 0:
        raise CliError(
            message="a time budget of nothing", code=ExitCode.USAGE, field="--time-budget", hint="for example 30m"
        )
    return total


def exclusion(text: str) -> tuple[str, str]:
    """Rule and reason of RULE=reason; an exclusion without a reason is refused. Raises CliError."""
    rule, _, reason = text.partition("=")
    if not rule.strip() or not reason.strip():
        raise CliError(
            message=f"an exclusion needs a rule and a reason: {text!r}",
            code=ExitCode.USAGE,
            field="--exclude",
            hint="--exclude 'RULE=why it does not apply here'",
        )
    return rule.strip(), reason.strip()


@click.command()
@click.argument("skill")
@click.option("--target", required=True, metavar="NAME", help="Target to work on (anneal target list).")
@click.option("--profile", default="", metavar="NAME", help="Profile of the skill's content (default: the skill's).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=None, metavar="N", help="At most N items.")
@click.option("--item", "items", multiple=True, metavar="RULE", help="Only this item; may be repeated.")
@click.option(
    "--time-budget", default="30m", show_default=True, metavar="T", help="Longest time for the run: 90s, 30m, 1h30m."
)
@click.option(
    "--max-attempts", type=click.IntRange(1, 20), default=3, show_default=True, metavar="N", help="Attempts per item."
)
@click.option(
    "--max-steps", type=click.IntRange(1, 1_000_000), default=None, metavar="N", help="Hard cap of counted steps."
)
@click.option(
    "--exclude", multiple=True, metavar="RULE=REASON", help="Leave this item alone, and say why; may be repeated."
)
@click.option("--tailoring", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="XCCDF tailoring file.")
@click.option("--model-profile", default="", metavar="NAME", help="Model profile to use.")
@click.option("--no-memory", is_flag=True, help="Ignore what earlier runs taught: no recalled scripts, no bans.")
@click.option("--dry-run", is_flag=True, help="Scan, plan, show every script with its class; touch nothing.")
@click.option(
    "--watch/--no-watch", default=None, help="Watch it to its end (default: on a terminal, and for a dry run)."
)
@gateway_option
@json_option
@click.pass_obj
def run(
    home_dir: str | None,
    /,
    gateway: str | None,
    as_json: bool,
    watch: bool | None,
    items: tuple[str, ...],
    limit: int | None,
    tailoring: Path | None,
    exclude: tuple[str, ...],
    time_budget: str,
    **plain: str | int | bool | None,
) -> int:
    """Runs SKILL against a target, for example: anneal run stig-rhel9 --target lab --watch

    Exit code 0: the run finished; 1: it failed or was cancelled; 5: another run holds the target.
    """
    if items and limit:
        raise CliError(
            message="--limit and --item exclude each other",
            code=ExitCode.USAGE,
            field="--limit",
            hint="give one of the two",
        )
    from anneal.supervisor.v1.supervisor_pb2 import Exclusion, RunSpec

    spec = RunSpec(
        **{key: value for key, value in plain.items() if value is not None},  # type: ignore[arg-type]
        item_ids=items,
        limit=limit or 0,
        exclusions=[Exclusion(item_id=rule, reason=reason) for rule, reason in map(exclusion, exclude)],
        tailoring=_tailoring(tailoring),
    )
    spec.time_budget.FromMilliseconds(int(duration_s(time_budget) * 1000))
    follow = watch if watch is not None else spec.dry_run or (sys.stdout.isatty() and not as_json)
    started: list[str] = []
    try:
        return call(home_dir, gateway, lambda gw: _start(gw, spec, follow=follow, as_json=as_json, started=started))
    except KeyboardInterrupt:
        if started:
            click.echo(
                f"\nno longer watching; the run goes on: anneal watch {started[0]}  (or: anneal cancel {started[0]})",
                err=True,
            )
        return int(ExitCode.INTERRUPTED)


def _tailoring(path: Path | None) -> bytes:
    if path is None:
        return b""
    if path.stat().st_size > _MAX_TAILORING:
        raise CliError(
            message=f"{path} is larger than 4 MB: no tailoring file is", code=ExitCode.USAGE, field="--tailoring"
        )
    content = path.read_bytes()
    if not content.strip():
        raise CliError(message=f"{path} is empty", code=ExitCode.USAGE, field="--tailoring")
    return content


async def _start(gateway: "Gateway", spec: "RunSpec", *, follow: bool, as_json: bool, started: list[str]) -> int:
    """Creates the run and, where wanted, stays until its end. started gets the id as soon as there is one."""
    from anneal.supervisor.v1.supervisor_pb2 import CreateRunRequest

    answer = await gateway.stub.CreateRun(CreateRunRequest(idempotency_key=str(uuid.uuid4()), spec=spec))
    started.append(answer.run_id)
    if not follow:
        say({"run_id": answer.run_id}, f"{answer.run_id}\n  next: anneal watch {answer.run_id}", as_json=as_json)
        return 0
    from anneal_cli.commands.watch import watch_run

    if not as_json:
        click.echo(f"run {answer.run_id}")
    code = await watch_run(gateway, answer.run_id, as_json=as_json)
    if not as_json:
        await _tell_end(gateway, answer.run_id, dry_run=spec.dry_run)
    return code


async def _tell_end(gateway: "Gateway", run_id: str, *, dry_run: bool) -> None:
    """After watching: the plan of a dry run in full, else the summary."""
    from anneal_cli.output import console
    from anneal_cli.views.dryrun import print_plan
    from anneal_cli.views.show import print_summary

    out = console()
    run_message = await gateway.exact_run(run_id)
    out.print()
    if dry_run:
        await print_plan(out, run_message, gateway.blob)
    else:
        print_summary(out, run_message)
