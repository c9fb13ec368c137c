"""`anneal audit verify`: the hash chain and the fold of a run's log, in the store or in an exported file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import as_data, emit_json, json_option

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway


@click.group()
def audit() -> None:
    """Checks a run's event log."""


@audit.command()
@click.argument("run", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check an exported log (report -o run.jsonl) offline.",
)
@gateway_option
@json_option
@click.pass_obj
def verify(home_dir: str | None, run: str | None, path: Path | None, gateway: str | None, as_json: bool) -> int:
    """Recomputes the hash chain of RUN's log and names the first entry that does not fit (exit code 1).

    In the store the fold is checked as well: the log must give the state that people are shown.
    """
    if bool(run) == bool(path):
        raise CliError(
            message="give a run or --file, not both and not neither",
            code=ExitCode.USAGE,
            field="RUN",
            hint="anneal audit verify last",
        )
    return _verify_file(path, as_json=as_json) if path else _verify_stored(home_dir, gateway, str(run), as_json=as_json)


def _verify_stored(home_dir: str | None, gateway: str | None, run: str, *, as_json: bool) -> int:
    from anneal.supervisor.v1.supervisor_pb2 import VerifyRunRequest

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        answer = await gw.stub.VerifyRun(VerifyRunRequest(run_id=run_id), timeout=120)
        return _say({"run_id": run_id, **as_data(answer)}, as_json=as_json)

    return call(home_dir, gateway, work)


def _verify_file(path: Path, *, as_json: bool) -> int:
    from anneal_core import chain

    from anneal_cli.exported import read_events

    found = chain.verify(read_events(path))
    facts = {"events": found.events, "first_bad_seq": found.first_bad, "reason": found.reason, "head_hash": found.head}
    return _say({"run_id": path.name, "ok": found.ok, **facts}, as_json=as_json)


def _say(facts: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        # 64-bit numbers are strings in protobuf's JSON.
        emit_json(facts | {key: int(facts[key]) for key in ("events", "first_bad_seq")})
    elif facts["ok"]:
        click.secho(f"ok: {facts['run_id']}: {facts['events']} events, the chain holds", fg="green")
        click.echo(f"  head {facts['head_hash']}")
    else:
        click.secho(
            f"DAMAGED: {facts['run_id']}: {facts['reason']} (event {facts['first_bad_seq']})", fg="red", bold=True
        )
        click.echo("  next: do not rely on this log; compare it with an exported copy (anneal report RUN -o run.jsonl)")
    return int(ExitCode.OK if facts["ok"] else ExitCode.NOT_HELD)
