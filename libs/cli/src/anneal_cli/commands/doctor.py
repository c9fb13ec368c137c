"""`anneal doctor`."""

from dataclasses import asdict

import click

from anneal_cli.exits import ExitCode
from anneal_cli.gateway import gateway_option
from anneal_cli.home import Home
from anneal_cli.output import console, emit_json, json_option


@click.command()
@click.option("--no-lab", is_flag=True, help="Do not ask for what only the lab needs.")
@gateway_option
@json_option
@click.pass_obj
def doctor(home_dir: str | None, no_lab: bool, gateway: str | None, as_json: bool) -> int:
    """Checks this machine and a running anneal; says what is missing and the command that mends it.

    Exit code 1 where something needed is missing; a warning alone is 0.
    """
    from anneal_cli.checkup import checkup
    from anneal_cli.views.checks import print_checks

    found = checkup(Home.of(home_dir), gateway, with_lab=not no_lab)
    bad = [check for check in found if check.needed and not check.ok]
    if as_json:
        emit_json({"ok": not bad, "checks": [asdict(check) for check in found]})
    else:
        out = console()
        print_checks(out, [(c.name, c.ok, c.needed, c.detail, c.mend) for c in found])
        words = f"missing: {', '.join(check.name for check in bad)}" if bad else "nothing needed is missing"
        out.print(f"\n{words}", style="bold red" if bad else "bold green")
    return int(ExitCode.NOT_HELD if bad else ExitCode.OK)
