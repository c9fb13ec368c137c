"""`anneal lab`: the disposable machine to practise on. All of it is done by anneal_lab; this is its place here."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home
from anneal_cli.output import emit_json, json_option, seconds

if TYPE_CHECKING:
    from anneal_lab import Access, Lab

T = TypeVar("T")
MACHINE = "lab"


@click.group()
def lab() -> None:
    """Builds and boots the disposable machine to practise on (needs root)."""


def lab_folder(home_dir: str | None) -> Path:
    """Where the lab keeps its images and machines."""
    return Home.of(home_dir).root / "lab"


def _with_lab(home_dir: str | None, work: Callable[["Lab"], T]) -> T:
    """Calls the lab; what it cannot do becomes a CliError, with what this host lacks if it lacks something."""
    from anneal_lab import Lab, LabError, preflight

    folder = lab_folder(home_dir)
    try:
        return work(Lab(folder))
    except LabError as e:
        problems = preflight(folder)
        hint = (
            problems[0].mend if problems else "anneal lab status shows what is there; anneal doctor checks this machine"
        )
        why = f" ({problems[0].what})" if problems and problems[0].what not in str(e) else ""
        raise CliError(message=f"{e}{why}", code=ExitCode.NOT_HELD, hint=hint) from e


@lab.command()
@click.option("--force", is_flag=True, help="Build even if the image is up to date.")
@json_option
@click.pass_obj
def build(home_dir: str | None, force: bool, as_json: bool) -> int:
    """Builds the image from Debian packages (about 4 minutes), unless the one there is up to date."""
    begun = time.monotonic()

    def progress(line: str) -> None:
        click.echo(line, err=as_json)

    image = _with_lab(home_dir, lambda lab: lab.build(force=force, progress=progress))
    took = time.monotonic() - begun
    if as_json:
        emit_json({"image": image, "seconds": round(took, 2)})
    else:
        click.echo(f"image {image} is there after {seconds(took)}\n  next: anneal lab up")
    return 0


def _boot(home_dir: str | None, name: str, work: Callable[["Lab"], "Access"], *, as_json: bool) -> int:
    begun = time.monotonic()
    access = _with_lab(home_dir, work)
    took = time.monotonic() - begun
    if as_json:
        reach = {"host": access.host, "port": access.port, "user": access.user, "key_path": str(access.key_path)}
        emit_json({"machine": name, **reach, "host_key": access.host_key, "seconds": round(took, 2)})
    else:
        click.echo(f"{name} is up at {access.user}@{access.host} after {seconds(took)}")
        click.echo(f"  next: anneal target add {name} --lab {name}   (once), or: anneal lab ssh")
    return 0


@lab.command()
@click.argument("name", default=MACHINE)
@json_option
@click.pass_obj
def up(home_dir: str | None, name: str, as_json: bool) -> int:
    """Boots a machine and waits until a login works."""
    return _boot(home_dir, name, lambda lab: lab.up(name), as_json=as_json)


@lab.command()
@click.argument("name", default=MACHINE)
@json_option
@click.pass_obj
def reset(home_dir: str | None, name: str, as_json: bool) -> int:
    """Puts a machine back to the pristine image and boots it."""
    return _boot(home_dir, name, lambda lab: lab.reset(name), as_json=as_json)


@lab.command()
@click.argument("source")
@click.argument("to")
@json_option
@click.pass_obj
def clone(home_dir: str | None, source: str, to: str, as_json: bool) -> int:
    """Makes TO, a running copy of SOURCE ('-' for the pristine image)."""
    return _boot(home_dir, to, lambda lab: lab.clone("" if source == "-" else source, to), as_json=as_json)


@lab.command()
@click.argument("name", default=MACHINE)
@json_option
@click.pass_obj
def down(home_dir: str | None, name: str, as_json: bool) -> int:
    """Stops a machine; its disk stays."""
    _with_lab(home_dir, lambda lab: lab.down(name))
    if as_json:
        emit_json({"machine": name, "state": "stopped"})
    else:
        click.echo(f"{name} is down; its disk stays")
    return 0


@lab.command()
@click.argument("name")
@json_option
@click.pass_obj
def delete(home_dir: str | None, name: str, as_json: bool) -> int:
    """Removes a machine, its disk and its snapshots."""
    _with_lab(home_dir, lambda lab: lab.delete(name))
    if as_json:
        emit_json({"machine": name, "state": "absent"})
    else:
        click.echo(f"{name} is gone")
    return 0


@lab.command(context_settings={"ignore_unknown_options": True})
@click.option("-n", "--name", default=MACHINE, show_default=True, help="The machine.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh(home_dir: str | None, name: str, command: tuple[str, ...]) -> int:
    """Opens a shell on a machine, or runs one command there; the exit code is the command's."""
    return _with_lab(home_dir, lambda lab: lab.run_ssh(name, command))


@lab.command()
@json_option
@click.pass_obj
def status(home_dir: str | None, as_json: bool) -> int:
    """Shows the image and the machines."""

    def work(lab: "Lab") -> int:
        machines = [lab.status(name) for name in lab.machines()]
        if as_json:
            rows = [
                {"name": m.name, "state": m.state, "image": m.image, "generations": list(m.generations)}
                for m in machines
            ]
            emit_json({"image": lab.image_id(), "machines": rows})
            return 0
        click.echo(f"image {lab.image_id() or 'none yet: anneal lab build'}")
        for m in machines:
            where = f"{m.access.user}@{m.access.host}" if m.access else "-"
            click.echo(f"{m.name:<10} {m.state:<8} {where:<22} {len(m.generations)} snapshots")
        return 0

    return _with_lab(home_dir, work)
