"""`anneal skills`."""

from typing import TYPE_CHECKING

import click

from anneal_cli.exits import ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.output import as_data, console, emit_json, json_option

if TYPE_CHECKING:
    from anneal_cli.gateway import Gateway


@click.command()
@gateway_option
@json_option
@click.pass_obj
def skills(home_dir: str | None, gateway: str | None, as_json: bool) -> int:
    """Lists the skills, their profiles and report formats. Exit code 1 where one is broken."""
    from anneal.evaluator.v1.evaluator_pb2 import ListSkillsRequest
    from rich.text import Text

    from anneal_cli.views.show import plain_table

    async def work(gw: "Gateway") -> int:
        found = list((await gw.stub.ListSkills(ListSkillsRequest())).skills)
        broken = [skill for skill in found if skill.error]
        if as_json:
            emit_json([as_data(skill) for skill in found])
            return int(ExitCode.NOT_HELD if broken else ExitCode.OK)
        table = plain_table(("skill", False), ("version", False), ("profiles (* default)", False), ("summary", False))
        for skill in found:
            profiles = " ".join(f"{name}*" if name == skill.default_profile else name for name in skill.profiles)
            text = Text(f"BROKEN: {skill.error}", style="red") if skill.error else Text(skill.summary)
            table.add_row(skill.name, skill.version or "-", profiles or "-", text)
        console().print(table) if found else click.echo("no skills\n  next: anneal dev --skills-dir DIR")
        return int(ExitCode.NOT_HELD if broken else ExitCode.OK)

    return call(home_dir, gateway, work)
