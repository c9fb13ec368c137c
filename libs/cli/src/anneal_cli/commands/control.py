"""`anneal pause`, `resume`, `approvals` and `replay`: people's hand on a run."""

import uuid
from typing import TYPE_CHECKING, Any

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option, me
from anneal_cli.output import as_data, console, emit_json, json_option, say

if TYPE_CHECKING:
    from anneal.supervisor.v1.control_pb2 import Approval

    from anneal_cli.gateway import Gateway


@click.command()
@click.argument("run")
@click.option("--reason", default="", help="Kept in the run's log.")
@gateway_option
@json_option
@click.pass_obj
def pause(home_dir: str | None, gateway: str | None, run: str, reason: str, as_json: bool) -> int:
    """Holds RUN up: what is under way on the target ends and is judged first. The target stays leased."""
    from anneal.supervisor.v1.control_pb2 import PauseRunRequest

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        request = PauseRunRequest(idempotency_key=str(uuid.uuid4()), run_id=run_id, by=me(), reason=reason)
        state = (await gw.stub.PauseRun(request)).state
        text = f"{run_id}: pause asked for, now {state}\n  next: anneal resume {run_id}"
        say({"run_id": run_id, "state": state}, text, as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


@click.command()
@click.argument("run")
@gateway_option
@json_option
@click.pass_obj
def resume(home_dir: str | None, gateway: str | None, run: str, as_json: bool) -> int:
    """Lets a paused RUN go on with the step that it stood before. Exit code 5 where it is not paused."""
    from anneal.supervisor.v1.control_pb2 import ResumeRunRequest

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        request = ResumeRunRequest(idempotency_key=str(uuid.uuid4()), run_id=run_id, by=me())
        state = (await gw.stub.ResumeRun(request)).state
        text = f"{run_id}: goes on, now {state}\n  next: anneal watch {run_id}"
        say({"run_id": run_id, "state": state}, text, as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


@click.group()
def approvals() -> None:
    """Shows and answers what runs ask of people.

    A destructive action does not run before a person has agreed to exactly this script for exactly this attempt. ID is
    RUN/ITEM/NUMBER as `list` shows it. Exit codes: 4 for an approval that is not there, 5 for one that was answered,
    has expired, or is about another script than the one that was seen.
    """


@approvals.command("list")
@click.argument("run", required=False)
@gateway_option
@json_option
@click.pass_obj
def list_approvals(home_dir: str | None, gateway: str | None, run: str | None, as_json: bool) -> int:
    """Lists what is asked now, oldest first; with RUN, also what was answered in that run."""
    from anneal.supervisor.v1.control_pb2 import ListApprovalsRequest

    from anneal_cli.safe import make_visible
    from anneal_cli.views.approvals import print_approvals

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run) if run else ""
        found = await gw.stub.ListApprovals(ListApprovalsRequest(run_id=run_id))
        if as_json:
            emit_json(as_data(found).get("approvals", []))
        else:
            make_visible(found)
            print_approvals(console(), list(found.approvals))
        return 0

    return call(home_dir, gateway, work)


@approvals.command()
@click.argument("given", metavar="ID")
@gateway_option
@json_option
@click.pass_obj
def show(home_dir: str | None, gateway: str | None, given: str, as_json: bool) -> int:
    """Shows one question with the script that would run."""
    from anneal.supervisor.v1.control_pb2 import GetApprovalRequest

    from anneal_cli.safe import make_visible
    from anneal_cli.views.approvals import print_approval

    async def work(gw: "Gateway") -> int:
        found = await gw.stub.GetApproval(GetApprovalRequest(id=given))
        if as_json:
            emit_json(as_data(found))
        else:
            make_visible(found)
            print_approval(console(), found)
        return 0

    return call(home_dir, gateway, work)


_hash_option = click.option(
    "--hash",
    "seen",
    default="",
    metavar="SHA256",
    help="The action that you have seen (or its first 8 digits or more); refused if it is another one by now.",
)


@approvals.command()
@click.argument("given", metavar="ID")
@_hash_option
@click.option("--reason", default="", help="Kept in the run's log.")
@gateway_option
@json_option
@click.pass_obj
def grant(home_dir: str | None, gateway: str | None, given: str, seen: str, reason: str, as_json: bool) -> int:
    """Agrees to this one attempt with this one script."""
    return _answer(home_dir, gateway, given, seen, reason, granted=True, as_json=as_json)


@approvals.command()
@click.argument("given", metavar="ID")
@_hash_option
@click.option("--reason", default="", help="Kept in the run's log.")
@gateway_option
@json_option
@click.pass_obj
def deny(home_dir: str | None, gateway: str | None, given: str, seen: str, reason: str, as_json: bool) -> int:
    """Refuses it; the item goes on with its next rung, or to a person."""
    return _answer(home_dir, gateway, given, seen, reason, granted=False, as_json=as_json)


def _answer(
    home_dir: str | None, gateway: str | None, given: str, seen: str, reason: str, *, granted: bool, as_json: bool
) -> int:
    from anneal.supervisor.v1.control_pb2 import AnswerApprovalRequest, GetApprovalRequest

    async def work(gw: "Gateway") -> int:
        asked = (await gw.stub.GetApproval(GetApprovalRequest(id=given))).approval
        request = AnswerApprovalRequest(
            idempotency_key=str(uuid.uuid4()),
            id=given,
            action_hash=_agreed(asked, seen),
            granted=granted,
            by=me(),
            reason=reason,
        )
        answered = (await gw.stub.AnswerApproval(request)).approval
        text = f"{answered.id}: {answered.state} by {answered.by}\n  next: anneal watch {answered.run_id}"
        say(as_data(answered), text, as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


def _agreed(asked: "Approval", seen: str) -> str:
    """The hash that is answered. Raises CliError where the person has seen another action."""
    if seen and (len(seen) < 8 or not asked.action_hash.startswith(seen.lower())):
        raise CliError(
            message=f"the action is {asked.action_hash[:12]}, not {seen[:12]!r}",
            code=ExitCode.CONFLICT,
            field="--hash",
            hint=f"anneal approvals show {asked.id}",
        )
    return asked.action_hash


@click.command()
@click.argument("run")
@gateway_option
@json_option
@click.pass_obj
def replay(home_dir: str | None, gateway: str | None, run: str, as_json: bool) -> int:
    """Folds RUN's stored log and decides every step again; touches nothing. Exit code 1 where anything differs."""
    from anneal.supervisor.v1.control_pb2 import ReplayRunRequest

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        found = await gw.stub.ReplayRun(ReplayRunRequest(run_id=run_id), timeout=120)
        facts: dict[str, Any] = {"run_id": run_id, **as_data(found)}
        if as_json:
            # 64-bit numbers are strings in protobuf's JSON.
            emit_json(facts | {key: int(facts[key]) for key in ("events", "decisions", "seq")})
        elif found.same:
            click.secho(f"same: {run_id}: {found.events} events, {found.decisions} decisions made again", fg="green")
        else:
            click.secho(f"DIFFERENT: {run_id}: event {found.seq}: {found.reason}", fg="red", bold=True)
            click.echo("".join(f"  {line}\n" for line in found.diff.splitlines()), nl=False)
            click.echo(f"  next: anneal audit verify {run_id}   (is it the log that was written?)")
        return int(ExitCode.OK if found.same else ExitCode.NOT_HELD)

    return call(home_dir, gateway, work)
