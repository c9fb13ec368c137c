"""`anneal queue list` and `show` for people."""

import json
from typing import Any

from anneal.supervisor.v1.queues_pb2 import GetParkedResponse, ListQueuesResponse
from rich.console import Console
from rich.text import Text

from anneal_cli.safe import visible
from anneal_cli.text import short_id, when
from anneal_cli.views.show import plain_table

# Of a message's content; --json has all of it.
_MOST_CHARS = 4000


def print_queues(out: Console, found: ListQueuesResponse) -> None:
    """The classes as a table, then the parked messages."""
    if found.problem:
        out.print(Text(f"the figures of the queues cannot be had: {found.problem}", style="bold red"))
    names = ("depth", "in flight", "redelivered", "parked", "idle")
    table = plain_table(("class", False), *((name, True) for name in names))
    for q in found.queues:
        figures = [q.depth, q.in_flight, q.redelivered, q.parked, q.idle]
        shown = [
            str(f) if not found.problem or name == "parked" else "-" for name, f in zip(names, figures, strict=True)
        ]
        table.add_row(q.work_class, *shown, style="yellow" if q.parked else "")
    out.print(table)
    if not found.parked:
        return
    out.print()
    parked = plain_table(("parked", False), ("since", False), ("message", False), ("run", False), ("why", False))
    for column in parked.columns[:4]:
        column.no_wrap = True
    for p in found.parked:
        why = Text(f"{p.reason}: {p.detail}")
        parked.add_row(p.id, when(p.parked_at), p.subject.removeprefix("anneal.work."), short_id(p.run_id) or "-", why)
    out.print(parked)
    out.print(Text(f"next: anneal queue show {found.parked[0].id}", style="cyan"))


def print_parked(out: Console, found: GetParkedResponse, command: Any) -> None:
    """Everything that is known of one message."""
    p = found.message
    facts = [
        ("state", p.state + (f" {when(p.settled_at)}" if p.settled_at.seconds else "")),
        ("why", f"{p.reason}: {p.detail}"),
        ("deliveries", str(p.deliveries)),
        ("parked", f"{when(p.parked_at)} by {p.doer}"),
        ("class", p.work_class),
        ("subject", p.subject),
        ("run", p.run_id or "none"),
        ("command", p.command_id or "none"),
        ("send again", "possible" if found.may_retry else f"no: {found.why_not}"),
    ]
    out.print(Text(p.id, style="bold"))
    table = plain_table(("", False), ("", False))
    table.show_header = False
    for name, text in facts:
        table.add_row(name, Text(text))
    out.print(table)
    content = found.data.decode(errors="replace") if command is None else json.dumps(command, indent=2)
    shown = visible(content[:_MOST_CHARS])
    out.print(
        f"\ncontent, {p.size:,} bytes" + (f", the first {_MOST_CHARS} shown" if len(content) > len(shown) else "")
    )
    out.print(shown, markup=False, soft_wrap=True)
    step = f"anneal queue {'retry' if found.may_retry else 'drop'} {p.id}"
    if p.state == "parked":
        out.print(Text(f"next: {step}", style="cyan"))
