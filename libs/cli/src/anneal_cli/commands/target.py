"""`anneal target`: the machines that runs work on."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anneal_cli.commands.lab import MACHINE, lab_folder
from anneal_cli.dev.state import read_state
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import address_of, call, gateway_option
from anneal_cli.home import Home
from anneal_cli.output import as_data, console, emit_json, json_option

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2 import Target

    from anneal_cli.gateway import Gateway


@click.group()
def target() -> None:
    """Adds, lists, tests and removes targets."""


@target.command()
@click.argument("name")
@click.option("--lab", "machine", default=None, metavar="MACHINE", help="A machine of the lab (anneal lab status).")
@click.option("--ssh", "where", default=None, metavar="USER@HOST[:PORT]", help="A host of yours, reached by SSH.")
@click.option(
    "--key", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Private key for --ssh, mode 0600."
)
@click.option(
    "--host-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="The host's public key (.pub or known_hosts). Without it the host is asked, and the fingerprint shown.",
)
@click.option("--yes", is_flag=True, help="Accept the fingerprint that is shown.")
@click.option(
    "--mission-service", "services", multiple=True, metavar="UNIT", help="Unit that must stay active; repeatable."
)
@gateway_option
@json_option
@click.pass_obj
def add(
    home_dir: str | None,
    /,
    name: str,
    machine: str | None,
    where: str | None,
    key: Path | None,
    host_key: Path | None,
    yes: bool,
    services: tuple[str, ...],
    gateway: str | None,
    as_json: bool,
) -> int:
    """Adds a target: a lab machine (--lab), or a host of yours (--ssh).

    A host reached by SSH has no snapshots: only fixes with a script that takes them back may run there.
    """
    from anneal.checkpoint.v1.checkpoint_pb2 import AddTargetRequest, Target

    if bool(machine) == bool(where):
        hint = f"anneal target add {name} --lab MACHINE, or --ssh USER@HOST --key FILE"
        raise CliError(message="say where it is: --lab or --ssh", code=ExitCode.USAGE, field="--lab", hint=hint)
    if machine:
        _require_machine(home_dir, gateway, name, machine)
        wanted = Target(name=name, driver="nspawn", machine=machine, mission_services=services)
    else:
        wanted = _ssh_target(name, str(where), key, host_key, yes=yes)
        wanted.mission_services.extend(services)

    async def work(gw: "Gateway") -> int:
        request = AddTargetRequest(idempotency_key=str(uuid.uuid4()), target=wanted)
        added = (await gw.stub.AddTarget(request)).target
        if as_json:
            emit_json(as_data(added))
            return 0
        click.echo(f"added {added.name}: {_place(added)}")
        if not added.can_snapshot:
            click.echo("  it has no snapshots: only fixes with a script that takes them back may run there")
        click.echo(f"  next: anneal target test {added.name}")
        return 0

    return call(home_dir, gateway, work)


def _require_machine(home_dir: str | None, gateway: str | None, name: str, machine: str) -> None:
    """Raises CliError where our own anneal's lab has no such machine; another gateway knows its own lab.

    The default machine may be named before it is made.
    """
    from anneal_lab import Lab

    home = Home.of(home_dir)
    state = read_state(home)
    is_ours = state is not None and address_of(home, gateway) == address_of(home, None)
    if machine == MACHINE or not is_ours:
        return
    known = Lab(lab_folder(home_dir)).machines()
    if machine not in known:
        raise CliError(
            message=f"the lab has no machine {machine!r} (there: {', '.join(known) or 'none'})",
            code=ExitCode.NOT_FOUND,
            field="--lab",
            hint=f"anneal lab up {machine}   makes it; or: anneal target add {name} --lab {(known or [MACHINE])[0]}",
        )


def _ssh_target(name: str, where: str, key: Path | None, host_key: Path | None, *, yes: bool) -> "Target":
    from anneal.checkpoint.v1.checkpoint_pb2 import Target

    from anneal_cli.hostkeys import accepted_key, key_of_file, split_address

    user, host, port = split_address(where)
    if key is None:
        raise CliError(
            message="an SSH target needs a private key",
            code=ExitCode.USAGE,
            field="--key",
            hint="--key ~/.ssh/id_ed25519",
        )
    path = key.expanduser().absolute()
    if not path.is_file():
        raise CliError(
            message=f"no such key file: {path}", code=ExitCode.USAGE, field="--key", hint="ssh-keygen makes one"
        )
    known = key_of_file(host_key, host) if host_key else accepted_key(host, port, yes=yes)
    return Target(name=name, driver="ssh", host=host, port=port, user=user, key_path=str(path), host_key=known)


def _place(found: "Target") -> str:
    if found.driver == "nspawn":
        return f"lab machine {found.machine}"
    return f"{found.user}@{found.host}:{found.port or 22}"


@target.command("list")
@gateway_option
@json_option
@click.pass_obj
def list_targets(home_dir: str | None, gateway: str | None, as_json: bool) -> int:
    """Lists the targets."""
    from anneal.checkpoint.v1.checkpoint_pb2 import ListTargetsRequest

    from anneal_cli.text import short_id
    from anneal_cli.views.show import plain_table

    async def work(gw: "Gateway") -> int:
        found = list((await gw.stub.ListTargets(ListTargetsRequest())).targets)
        if as_json:
            emit_json([as_data(one) for one in found])
            return 0
        if not found:
            click.echo("no targets yet\n  next: anneal target add lab --lab lab")
            return 0
        table = plain_table(("target", False), ("where", False), ("snapshots", False), ("leased by", False))
        for one in found:
            snapshots = "yes" if one.can_snapshot else "no"
            table.add_row(one.name, _place(one), snapshots, short_id(one.leased_by) if one.leased_by else "-")
        console().print(table)
        return 0

    return call(home_dir, gateway, work)


@target.command()
@click.argument("name")
@gateway_option
@json_option
@click.pass_obj
def remove(home_dir: str | None, name: str, gateway: str | None, as_json: bool) -> int:
    """Removes a target and its saved states; the machine itself stays as it is."""
    from anneal.checkpoint.v1.checkpoint_pb2 import RemoveTargetRequest

    async def work(gw: "Gateway") -> int:
        await gw.stub.RemoveTarget(RemoveTargetRequest(idempotency_key=str(uuid.uuid4()), name=name))
        if as_json:
            emit_json({"removed": name})
        else:
            click.echo(f"removed {name}")
        return 0

    return call(home_dir, gateway, work)


@target.command()
@click.argument("name")
@click.option("--skill", default="", metavar="NAME", help="Check as well what this skill needs on the target.")
@gateway_option
@json_option
@click.pass_obj
def test(home_dir: str | None, name: str, skill: str, gateway: str | None, as_json: bool) -> int:
    """Reaches the target as a run would: login, host key, sudo, tools. Exit code 1 where a check fails."""
    from anneal.evaluator.v1.evaluator_pb2 import CheckTargetRequest

    from anneal_cli.views.checks import print_checks

    async def work(gw: "Gateway") -> int:
        answer = await gw.stub.CheckTarget(CheckTargetRequest(target=name, skill=skill), timeout=120)
        if as_json:
            emit_json(as_data(answer))
        else:
            print_checks(console(), [(c.name, c.ok, True, c.detail, c.mend) for c in answer.checks])
        return int(ExitCode.OK if answer.ok else ExitCode.NOT_HELD)

    return call(home_dir, gateway, work)
