"""`anneal dev` and its stop, status and logs."""

import contextlib
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from anneal_cli.dev.plan import DEFAULT_BASE, SERVICES, ModelChoice, Plan, find_skills
from anneal_cli.dev.state import DevState, is_alive, read_state
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home
from anneal_cli.output import console, emit_json, json_option, say, seconds

# Longer than the tree itself takes to end in the worst case: services, then NATS, then Postgres.
STOP_TIMEOUT_S = 45.0


@click.group(invoke_without_command=True)
@click.option("--detach", is_flag=True, help="Run in the background; return when everything is ready.")
@click.option(
    "--port-base",
    type=click.IntRange(1024, 65400),
    default=DEFAULT_BASE,
    envvar="ANNEAL_PORT_BASE",
    metavar="N",
    show_default=True,
    help="First port; the parts listen at fixed distances from it.",
)
@click.option(
    "--model-url", default="", metavar="URL", help="OpenAI-compatible server to use instead of the small local model."
)
@click.option(
    "--model",
    "model_name",
    default="",
    metavar="NAME",
    help="Name of the model on that server; without --model-url, of the local weights (smollm2, gemma3-270m).",
)
@click.option(
    "--may",
    type=click.Choice(["author", "choose", "none"]),
    default=None,
    help="What the model may do (default: author with --model-url, else none).",
)
@click.option("--no-model", is_flag=True, help="Start no local model.")
@click.option(
    "--models",
    "models_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="ANNEAL_MODELS_FILE",
    help="anneal.yaml with model profiles (default: the data folder's, if there is one).",
)
@click.option(
    "--skills-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="ANNEAL_SKILLS_DIR",
    help="Folder of skills (default: the checkout's skills/).",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    default="INFO",
    envvar="ANNEAL_LOG_LEVEL",
    show_default=True,
    help="Least level that the services log.",
)
@click.option("--service", "only", default=None, metavar="NAME", help="Show only this part's log lines on the console.")
@click.option("--report-fd", type=int, default=-1, hidden=True)
@json_option
@click.pass_context
def dev(
    ctx: click.Context,
    detach: bool,
    port_base: int,
    model_url: str,
    model_name: str,
    may: str | None,
    no_model: bool,
    models_file: Path | None,
    skills_dir: Path | None,
    log_level: str,
    only: str | None,
    report_fd: int,
    as_json: bool,
) -> int:
    """Starts all of anneal on this machine: Postgres, NATS, a small local model, six services.

    Runs until Ctrl-C, and then leaves no process behind. A part that dies is started again; one that dies more than
    five times within a minute ends everything, with its last lines.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    home = Home.of(ctx.obj)
    _check_model(model_url, model_name)
    plan = Plan(
        home=home.root,
        token=home.ensure_token(),
        skills_dir=_skills(skills_dir),
        port_base=port_base,
        model=ModelChoice(url=model_url, name=model_name, may=may or "", local=not no_model),
        log_level=log_level,
        models_file=_models_file(home, models_file),
    )
    if detach:
        from anneal_cli.dev.detach import start_detached

        return start_detached(home, _arguments(plan), as_json=as_json)
    from anneal_cli.dev.serve import serve
    from anneal_cli.dev.voice import make_voice

    serve(home, plan, make_voice(home, plan, only=only, report_fd=report_fd, as_json=as_json))
    return 0


def _check_model(url: str, name: str) -> None:
    """Raises CliError: a server without a model's name, or local weights that nobody knows."""
    if url and not name:
        raise CliError(
            message="a model server needs the model's name",
            code=ExitCode.USAGE,
            field="--model",
            hint=f"anneal dev --model-url {url} --model NAME",
        )
    if name and not url:
        from anneal_cli.model_server import MODELS

        if name not in MODELS:
            raise CliError(
                message=f"no local weights are called {name!r}; known: {', '.join(MODELS)}",
                code=ExitCode.USAGE,
                field="--model",
                hint=f"for a model on a server: anneal dev --model-url URL --model {name}",
            )


def _models_file(home: Home, given: Path | None) -> Path | None:
    own = home.root / "anneal.yaml"
    return given.absolute() if given else own if own.is_file() else None


def _arguments(plan: Plan) -> list[str]:
    """The options that make the same plan again."""
    words = ["--port-base", str(plan.port_base), "--skills-dir", str(plan.skills_dir), "--log-level", plan.log_level]
    choice = plan.model
    words += ["--model-url", choice.url] if choice.url else []
    words += ["--model", choice.name] if choice.name else []
    words += ["--may", choice.may] if choice.may else []
    words += ["--models", str(plan.models_file)] if plan.models_file else []
    return words if choice.local else [*words, "--no-model"]


def _skills(given: Path | None) -> Path:
    found = given or find_skills()
    if found is None:
        raise CliError(
            message="no skills folder found beside this installation",
            code=ExitCode.USAGE,
            field="--skills-dir",
            hint="anneal dev --skills-dir DIR, or set ANNEAL_SKILLS_DIR",
        )
    return found.absolute()


def _running(home: Home) -> DevState:
    state = read_state(home)
    if state is None:
        raise CliError(
            message=f"anneal dev is not running (data folder {home.root})",
            code=ExitCode.UNREACHABLE,
            hint="start it with: anneal dev",
        )
    return state


@dev.command()
@json_option
@click.pass_obj
def stop(home_dir: str | None, as_json: bool) -> int:
    """Ends the running anneal dev and all it started. Nothing to do is fine."""
    state = read_state(Home.of(home_dir))
    if state is None:
        say({"stopped": False, "pid": None}, "anneal dev is not running", as_json=as_json)
        return 0
    begun = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    _wait_gone(state, STOP_TIMEOUT_S)
    took = time.monotonic() - begun
    say(
        {"stopped": True, "pid": state.pid, "seconds": round(took, 2)},
        f"stopped, pid {state.pid}, after {seconds(took)}",
        as_json=as_json,
    )
    return 0


def _wait_gone(state: DevState, timeout_s: float) -> None:
    """Waits for its end; then SIGKILL, which its children do not outlive."""
    deadline = time.monotonic() + timeout_s
    while is_alive(state.pid, state.started):
        if time.monotonic() > deadline:
            os.kill(state.pid, signal.SIGKILL)
            deadline += 5
        time.sleep(0.05)


@dev.command()
@json_option
@click.pass_obj
def status(home_dir: str | None, as_json: bool) -> int:
    """Shows each part: pid, port, health, memory. Exit code 1 where a service does not serve."""
    import asyncio

    from anneal_cli.dev.health import is_serving
    from anneal_cli.dev.status import rows, totals

    state = _running(Home.of(home_dir))

    async def ask() -> dict[str, bool]:
        answers = await asyncio.gather(*(is_serving(f"127.0.0.1:{state.ports[name]}") for name in SERVICES))
        return dict(zip(SERVICES, answers, strict=True))

    serving = asyncio.run(ask())
    found = rows(state, serving)
    if as_json:
        emit_json({"phase": state.phase, "parts": [asdict(row) for row in found], "totals": totals(found)})
    else:
        _print_status(found, totals(found))
    return 0 if all(serving.values()) else int(ExitCode.NOT_HELD)


def _print_status(found: list[Any], sums: dict[str, float]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, right in [
        ("part", False),
        ("pid", True),
        ("port", True),
        ("state", False),
        ("restarts", True),
        ("RSS MB", True),
        ("PSS MB", True),
    ]:
        table.add_column(title, justify="right" if right else "left")
    colour = {"serving": "green", "running": "green", "ready": "green", "down": "red", "not serving": "red"}
    for row in found:
        word = f"[{colour.get(row.state, 'yellow')}]{row.state}[/]"
        table.add_row(
            row.name,
            str(row.pid or "-"),
            str(row.port or "-"),
            word,
            str(row.restarts),
            f"{row.rss_mb:.1f}",
            f"{row.pss_mb:.1f}",
        )
    out = console()
    out.print(table)
    resident, once = sums["rss_mb_without_model"], sums["pss_mb_without_model"]
    out.print(f"without the model: {resident:.0f} MB resident ({once:.0f} MB with shared pages counted once)")


@dev.command()
@click.option(
    "--service", default=None, metavar="NAME", help="Only this part's lines (dev, postgres, nats, model, or a service)."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 100_000),
    default=50,
    show_default=True,
    metavar="N",
    help="How many of the last lines.",
)
@json_option
@click.pass_obj
def logs(home_dir: str | None, service: str | None, follow: bool, lines: int, as_json: bool) -> int:
    """Shows the combined log."""
    import json

    from anneal_cli.dev.logs import follow_entries, read_entries, short

    path = Home.of(home_dir).log_file
    if not path.exists():
        raise CliError(
            message=f"there is no log yet: {path}", code=ExitCode.NOT_FOUND, hint="start anneal with: anneal dev"
        )
    known = {"dev", "postgres", "nats", "model", *SERVICES}
    if service is not None and service not in known:
        raise CliError(
            message=f"no part is called {service!r}",
            code=ExitCode.USAGE,
            field="--service",
            hint=f"one of: {', '.join(sorted(known))}",
        )

    def show(entry: dict[str, Any]) -> None:
        click.echo(json.dumps(entry, ensure_ascii=False) if as_json else short(entry))

    for entry in read_entries(path, service=service, last=lines):
        show(entry)
    if follow:
        for entry in follow_entries(path, service=service):
            show(entry)
    return 0
