"""`anneal fork`: a new run from a moment of another one."""

import json
import uuid
from typing import TYPE_CHECKING

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option, me
from anneal_cli.output import json_option, say

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway


def bound(text: str) -> tuple[str, str]:
    """Name and value of KEY=VALUE. Raises CliError."""
    key, _, value = text.partition("=")
    if not key.strip() or not value.strip():
        raise CliError(
            message=f"not KEY=VALUE: {text!r}",
            code=ExitCode.USAGE,
            field="--set",
            hint="for example --set max_attempts=5 --set time_budget=1h",
        )
    return key.strip(), value.strip()


@click.command()
@click.argument("run")
@click.option(
    "--at", "seq", type=click.IntRange(min=1), metavar="SEQ", help="Number of the last event that both share."
)
@click.option("--before", "rule", metavar="RULE", help="Instead of --at: the moment before RULE's first attempt.")
@click.option("--model", "model_profile", default="", metavar="NAME", help="Another model profile from there on.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another bound; may be repeated: max_attempts, max_steps, time_budget (90s, 30m, 1h30m), approval_ttl,"
    " max_gaps, max_group, max_reflections, repair_rounds, gate_rounds.",
)
@gateway_option
@json_option
@click.pass_obj
def fork(
    home_dir: str | None,
    gateway: str | None,
    run: str,
    seq: int | None,
    rule: str | None,
    model_profile: str,
    changes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Begins a new run with the past of RUN up to an event, on the same target put back to that moment.

    What was under way at that moment goes again. Time counts from the fork, steps go on counting. What people agreed to
    in RUN is asked again. RUN must have ended, and its saved state of that moment must still be kept: the error says of
    which events there is one. Event numbers are in `anneal report RUN -o run.jsonl`. Exit code 5: the target is taken,
    the state is gone, or nothing is left to do.
    """
    from anneal.supervisor.v1.control_pb2 import ForkRunRequest

    if (seq is None) == (rule is None):
        hint = "give one of the two"
        raise CliError(message="--at or --before says from where", code=ExitCode.USAGE, field="--at", hint=hint)
    bounds = dict(map(bound, changes))

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        request = ForkRunRequest(
            idempotency_key=str(uuid.uuid4()),
            run_id=run_id,
            seq=seq or await _moment_before(gw, run_id, rule or ""),
            by=me(),
            model_profile=model_profile,
            set=bounds,
        )
        forked = (await gw.stub.ForkRun(request, timeout=120)).run_id
        text = f"{forked}: forked from {run_id} after event {request.seq}\n  next: anneal watch {forked}"
        say({"run_id": forked, "parent": run_id, "seq": request.seq}, text, as_json=as_json)
        return 0

    return call(home_dir, gateway, work)


async def _moment_before(gateway: "Gateway", run_id: str, rule: str) -> int:
    """Number of the event before the first attempt at a rule in this run. Raises CliError."""
    from anneal.supervisor.v1.supervisor_pb2 import ReadEventsRequest

    from anneal_cli.views.explain import find_item

    found = await gateway.exact_run(run_id)
    item = find_item(found, rule)
    async for answer in gateway.stub.WatchRun(
        ReadEventsRequest(run_id=run_id, after_seq=found.origin.seq), timeout=120
    ):
        event = answer.event
        if event.type == "attempt_started" and json.loads(event.payload_json)["item_id"] == item.id:
            return event.seq - 1
    raise CliError(
        message=f"nothing was tried at {item.id} in {run_id}",
        code=ExitCode.NOT_FOUND,
        field="--before",
        hint=f"anneal explain {run_id} {item.id} tells why",
    )
