"""Announcements: which events of a run were added. What is in them stays in Postgres, which is the truth."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

from anneal_contracts.canonical import canonical_json
from anneal_contracts.work import event_subject

from anneal_supervisor.store import Left, Outgoing

_SUBJECTS = event_subject("")


def announcement(run_id: str, first: int, last: int) -> Outgoing:
    """Tells of the events from first to last."""
    body = canonical_json({"run_id": run_id, "first": first, "last": last})
    return Outgoing(subject=event_subject(run_id), msg_id=f"{run_id}/{last}", data=body)


def is_news(message: Outgoing) -> bool:
    """Is it an announcement? Nobody waits for one."""
    return message.subject.startswith(_SUBJECTS)


def merged(rows: Iterable[Left]) -> Sequence[tuple[Outgoing, Sequence[int]]]:
    """One announcement a run for all of these, with the ids of the rows that it stands for."""
    by_run = groupby(sorted(rows, key=lambda row: (row[1].subject, row[0])), key=lambda row: row[1].subject)
    found = []
    for _, several in by_run:
        group = list(several)
        told = [json.loads(message.data) for _, message in group]
        one = announcement(told[0]["run_id"], min(t["first"] for t in told), max(t["last"] for t in told))
        found.append((one, [row_id for row_id, _ in group]))
    return found
