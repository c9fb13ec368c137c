"""`anneal effects`: what a run did to its target, as the ledger has it."""

from typing import TYPE_CHECKING

import click

from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import as_data, console, emit_json, json_option

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway


@click.command()
@click.argument("run")
@click.option("--state", default="", metavar="STATE", help="Only these: intended, started, applied, reverted, unknown.")
@gateway_option
@json_option
@click.pass_obj
def effects(home_dir: str | None, gateway: str | None, run: str, state: str, as_json: bool) -> int:
    """Lists what RUN did to its target, in the order in which it was intended.

    Each effect was on record before anything happened. reverted: taken back, or it never happened. unknown: nobody
    could find out how far it came; its script and its output are on the target, in /var/lib/anneal/effects/KEY.
    """
    from anneal.checkpoint.v1.checkpoint_pb2 import ListEffectsRequest

    from anneal_cli.safe import make_visible
    from anneal_cli.views.effects import check_state, print_effects

    check_state(state)

    async def work(gw: "Gateway") -> int:
        run_id = await gw.run_id(run)
        answer = await gw.stub.ListEffects(ListEffectsRequest(run_id=run_id))
        make_visible(answer)
        found = [e for e in answer.effects if state in ("", e.state)]
        if as_json:
            emit_json([as_data(e) for e in found])
        else:
            print_effects(console(), found)
        return 0

    return call(home_dir, gateway, work)
