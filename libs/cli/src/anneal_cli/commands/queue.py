"""`anneal queue`: what waits for a doer, and the messages that were given up."""

import json
import uuid
from typing import TYPE_CHECKING, Any

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import as_data, console, emit_json, json_option, say

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway


@click.group()
def queue() -> None:
    """Shows what waits for a doer, and settles messages that were given up.

    Work of each class (evaluation, model, action, post) has a queue of its own. A message that crashes its handler or
    cannot be read is parked after three deliveries, and its run is told. ID is a parked message's id or a unique
    beginning of it. Exit codes: 4 for a message that is not there, 5 for one that may not be sent again or is settled.
    """


@queue.command("list")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="Parked messages."
)
@gateway_option
@json_option
@click.pass_obj
def list_queues(home_dir: str | None, gateway: str | None, limit: int, as_json: bool) -> int:
    """Lists each class with its figures, then what is parked, newest first. Exit code 1: figures cannot be had.

    Depth: not delivered yet. In flight: with a doer, or waiting for the next delivery. Redelivered: in flight, and
    delivered before. Idle: lanes of doers that wait for work; 0 beside a depth means that all are busy, or none runs.
    """
    from anneal.supervisor.v1.queues_pb2 import ListQueuesRequest

    from anneal_cli.safe import make_visible
    from anneal_cli.views.queue import print_queues

    async def work(gw: "Gateway") -> int:
        found = await gw.stub.ListQueues(ListQueuesRequest(limit=limit))
        if as_json:
            emit_json(as_data(found))
        else:
            make_visible(found)
            print_queues(console(), found)
        return int(ExitCode.NOT_HELD if found.problem else ExitCode.OK)

    return call(home_dir, gateway, work)


@queue.command()
@click.argument("given", metavar="ID")
@gateway_option
@json_option
@click.pass_obj
def show(home_dir: str | None, given: str, gateway: str | None, as_json: bool) -> int:
    """Shows a parked message: why it was given up, what was in it, and whether it may be sent again."""
    from anneal.supervisor.v1.queues_pb2 import GetParkedRequest

    from anneal_cli.safe import make_visible
    from anneal_cli.views.queue import print_parked

    async def work(gw: "Gateway") -> int:
        found = await gw.stub.GetParked(GetParkedRequest(id=await _whole_id(gw, given)))
        if as_json:
            emit_json(as_data(found) | {"command": _parsed(found.data)})
        else:
            make_visible(found)
            print_parked(console(), found, _parsed(found.data))
        return 0

    return call(home_dir, gateway, work)


@queue.command()
@click.argument("given", metavar="ID")
@gateway_option
@json_option
@click.pass_obj
def retry(home_dir: str | None, given: str, gateway: str | None, as_json: bool) -> int:
    """Sends a parked message again. Exit code 5 where its run no longer waits for the command."""
    from anneal.supervisor.v1.queues_pb2 import RetryParkedRequest

    async def work(gw: "Gateway") -> int:
        parked_id = await _whole_id(gw, given)
        request = RetryParkedRequest(idempotency_key=str(uuid.uuid4()), id=parked_id)
        answer = await gw.stub.RetryParked(request)
        text = f"{parked_id}: sent again to {answer.message.work_class}\n  next: anneal queue list"
        say(as_data(answer), text, as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


@queue.command()
@click.argument("given", metavar="ID")
@gateway_option
@json_option
@click.pass_obj
def drop(home_dir: str | None, given: str, gateway: str | None, as_json: bool) -> int:
    """Takes a parked message off the list; it can be shown by its id for seven more days."""
    from anneal.supervisor.v1.queues_pb2 import DropParkedRequest

    async def work(gw: "Gateway") -> int:
        parked_id = await _whole_id(gw, given)
        answer = await gw.stub.DropParked(DropParkedRequest(idempotency_key=str(uuid.uuid4()), id=parked_id))
        say(as_data(answer), f"{parked_id}: dropped", as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


async def _whole_id(gw: "Gateway", given: str) -> str:
    """The id that a beginning stands for; what begins nothing parked is taken as it is. Raises CliError: several."""
    from anneal.supervisor.v1.queues_pb2 import ListQueuesRequest

    parked = [one.id for one in (await gw.stub.ListQueues(ListQueuesRequest(limit=1000))).parked]
    found = [one for one in parked if one.startswith(given)]
    if given in found or not found:
        return given
    if len(found) > 1:
        raise CliError(
            message=f"{given!r} is the beginning of {len(found)} parked messages: {', '.join(found[:4])}",
            code=ExitCode.USAGE,
            field="ID",
            hint="give more of the id",
        )
    return found[0]


def _parsed(data: bytes) -> Any:
    """The message's content where it is JSON, else None."""
    try:
        return json.loads(data)
    except ValueError:
        return None
