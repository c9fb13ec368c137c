"""Shows what is followed: live on a terminal, one line a change where there is none, JSON lines for programs."""

import json
from collections.abc import AsyncIterator

import click
from anneal.supervisor.v1.supervisor_pb2 import Item, Run
from rich.console import Console
from rich.live import Live

from anneal_cli.exits import ExitCode
from anneal_cli.text import tally
from anneal_cli.watch.follow import Look
from anneal_cli.watch.waffle import Waffle, activity, counters


async def show_live(out: Console, looks: AsyncIterator[Look]) -> Run:
    """The waffle on a terminal. Returns the run as it ended."""
    run, last = Run(), ""
    with Live(console=out, auto_refresh=False, vertical_overflow="crop", transient=False) as live:
        async for look in looks:
            run = look.run
            last = _last_closed(look) or last
            live.update(Waffle(run=run, doing=look.doing, last=last, trouble=look.trouble), refresh=True)
    return run


async def show_lines(looks: AsyncIterator[Look]) -> Run:
    """One line for each item that changed and each phase. Returns the run as it ended."""
    run, phase, trouble = Run(), "", ""
    async for look in looks:
        run = look.run
        if look.trouble != trouble:
            click.echo(f"{_clock(run)} {look.trouble or 'connected again'}")
            trouble = look.trouble
        if run.state != phase:
            phase = run.state
            click.echo(f"{_clock(run)} {phase}{': ' + run.reason if run.reason else ''}")
        for item in _closed(look):
            click.echo(f"{_clock(run)} {_progress(run)} {item_line(item)}")
    click.echo(counters(run))
    return run


async def show_json_lines(looks: AsyncIterator[Look]) -> Run:
    """One JSON object a look: state, tally, what is going on, items that changed."""
    run = Run()
    async for look in looks:
        run = look.run
        changed = {item.id: item.state for item in run.items if item.id in set(look.changed)}
        line = {
            "state": run.state,
            "seq": run.last_seq,
            "steps": run.steps,
            "items": tally(run),
            "now": activity(run, look.doing),
            "changed": changed,
        }
        click.echo(json.dumps(line | ({"trouble": look.trouble} if look.trouble else {}), ensure_ascii=False))
    return run


def item_line(item: Item) -> str:
    """What came of an item, in one line."""
    by = f" by {item.rung}" if item.rung else ""
    tries = f", attempt {item.attempts_made}" if item.attempts_made else ""
    why = f": {item.reason}" if item.reason and item.state != "completed" else ""
    return f"{item.state:<9} {item.id}{by}{tries}{why}"


def exit_code(run: Run) -> int:
    """0 where the run finished; 1 where it failed or was cancelled."""
    return int(ExitCode.OK if run.state == "finished" else ExitCode.NOT_HELD)


def _closed(look: Look) -> list[Item]:
    changed = set(look.changed)
    return [item for item in look.run.items if item.id in changed and item.state not in ("queued", "active")]


def _last_closed(look: Look) -> str:
    closed = [item for item in _closed(look) if item.attempts_made] or _closed(look)
    return " ".join(item_line(closed[-1]).split()) if closed else ""


def _progress(run: Run) -> str:
    left = sum(1 for item in run.items if item.state in ("queued", "active"))
    return f"[{len(run.items) - left:>3}/{len(run.items)}]"


def _clock(run: Run) -> str:
    """Time since the run's start, as the supervisor counts it."""
    total = int(run.seconds)
    return f"{total // 60:>3}:{total % 60:02d}"
