"""How `anneal dev` speaks: on a console, through a pipe to the command that detached it, or as one JSON line."""

import os
from typing import Any

import click

from anneal_cli.dev.logs import level_of, short
from anneal_cli.dev.plan import SERVICES, Plan
from anneal_cli.dev.serve import Voice
from anneal_cli.dev.state import DevState
from anneal_cli.home import Home
from anneal_cli.output import console, seconds

# What the embedded servers say is of interest only when something is wrong; the log file has all of it.
_QUIET_BELOW = {"postgres": 30, "nats": 30, "model": 30}
_STYLE = {30: "yellow", 40: "red", 50: "bold red"}


def make_voice(home: Home, plan: Plan, *, only: str | None, report_fd: int, as_json: bool) -> Voice:
    """The voice that fits how we were started."""
    if report_fd >= 0:
        return _pipe_voice(home, plan, report_fd)
    return _console_voice(home, plan, only, as_json=as_json)


def _console_voice(home: Home, plan: Plan, only: str | None, *, as_json: bool) -> Voice:
    out = console(stderr=as_json)

    def entry(line: dict[str, Any]) -> None:
        service = str(line.get("service"))
        wanted = service == only if only else level_of(line) >= _QUIET_BELOW.get(service, 20)
        if wanted:
            out.print(
                short(line), style=_STYLE.get(level_of(line), "dim"), markup=False, overflow="ellipsis", no_wrap=True
            )

    def ready(state: DevState, took_s: float) -> None:
        if as_json:
            import json

            click.echo(
                json.dumps({"phase": "ready", "pid": state.pid, "ports": state.ports, "seconds": round(took_s, 2)})
            )
        for line in ready_lines(home, plan, took_s):
            out.print(line, style="green" if line.startswith("anneal is ready") else None, markup=False)
        out.print("Ctrl-C ends it.", style="dim")

    return Voice(say=lambda line: out.print(line, markup=False), entry=entry, ready=ready)


def _pipe_voice(home: Home, plan: Plan, fd: int) -> Voice:
    """Speaks until ready, then closes the pipe and keeps silent: the log file goes on."""
    pipe = os.fdopen(fd, "w", buffering=1)

    def say(line: str) -> None:
        if not pipe.closed:
            try:
                pipe.write(line + "\n")
            except OSError:
                pipe.detach()  # whoever started us has gone; that is no reason to stop

    def ready(state: DevState, took_s: float) -> None:
        for line in ready_lines(home, plan, took_s):
            say(line)
        say("It runs in the background: anneal dev status | logs -f | stop")
        pipe.close()

    return Voice(say=say, entry=lambda _: None, ready=ready)


def ready_lines(home: Home, plan: Plan, took_s: float) -> list[str]:
    """What a person needs once everything is up."""
    shown = "none: runs use the rungs that need no model"
    if plan.model.url:
        shown = f"{plan.model.name} at {plan.model.url} (may: {plan.model.may or 'author'})"
    elif plan.runs_model:
        shown = f"{plan.local_model}, small and local, at {plan.model_address()} (may: none)"
    return [
        f"anneal is ready after {seconds(took_s)}: {len(SERVICES)} services",
        f"  gateway  gRPC {plan.address('gateway')}, HTTP http://{plan.address('gateway-http')}",
        f"  model    {shown}",
        f"  skills   {plan.skills_dir}",
        f"  log      {home.log_file}",
        f"  token    {home.token_file}",
        "  next     anneal run SKILL --target NAME --watch   (anneal skills, anneal target list)",
    ]
