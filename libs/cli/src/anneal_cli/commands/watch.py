"""`anneal watch`."""

from typing import TYPE_CHECKING

import click

from anneal_cli.exits import ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import console, json_option

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway


@click.command()
@click.argument("run")
@gateway_option
@json_option
@click.pass_obj
def watch(home_dir: str | None, run: str, gateway: str | None, as_json: bool) -> int:
    """Watches RUN until it ends: one cell per rule on a terminal, one line a change elsewhere.

    Ctrl-C ends the watching, not the run. Exit code 1 where the run failed or was cancelled.
    """

    async def work(gw: "Gateway") -> int:
        return await watch_run(gw, await gw.run_id(run), as_json=as_json)

    try:
        return call(home_dir, gateway, work)
    except KeyboardInterrupt:
        click.echo(f"\nno longer watching; the run goes on: anneal watch {run}", err=True)
        return int(ExitCode.INTERRUPTED)


async def watch_run(gateway: "Gateway", run_id: str, *, as_json: bool) -> int:
    """Shows the run until it ends; the exit code that its end deserves."""
    from anneal_cli.watch.follow import looks
    from anneal_cli.watch.screen import exit_code, show_json_lines, show_lines, show_live

    seen = looks(gateway, run_id)
    out = console()
    if as_json:
        return exit_code(await show_json_lines(seen))
    return exit_code(await show_live(out, seen) if out.is_terminal else await show_lines(seen))
