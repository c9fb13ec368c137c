"""The hash chain of a run's log.

An event's hash is SHA-256 over the canonical JSON of all its other fields, prev_hash among them; the first event's
prev_hash is 64 zeros. Whoever changes one byte of a stored event has to change every hash after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from anneal_contracts.canonical import digest
from anneal_contracts.facts import Frozen

GENESIS = "0" * 64


class Event(Frozen):
    """One entry of the log. at: Unix time in seconds. payload: plain data of one class of anneal_core.events."""

    run_id: str
    seq: int
    at: float
    type: str
    actor: str
    payload: dict[str, Any]
    prev_hash: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Outcome of a check. first_bad is 0 where the chain holds."""

    ok: bool
    events: int
    head: str
    first_bad: int = 0
    reason: str = ""


def event_hash(event: Event) -> str:
    """The hash that an event with these fields must carry."""
    fields = event.model_dump(mode="json", exclude={"hash"})
    return digest(fields)


def link(*, run_id: str, seq: int, at: float, type: str, actor: str, payload: dict[str, Any], prev_hash: str) -> Event:
    """A new event, chained to the one before it."""
    fields: dict[str, Any] = {
        "run_id": run_id,
        "seq": seq,
        "at": at,
        "type": type,
        "actor": actor,
        "payload": payload,
        "prev_hash": prev_hash,
    }
    return Event(**fields, hash=digest(fields))


def renamed(events: Iterable[Event], run_id: str) -> Iterator[Event]:
    """The same events as another run's log: chained anew under its id."""
    prev = GENESIS
    for event in events:
        fields = event.model_dump(exclude={"run_id", "prev_hash", "hash"})
        event = link(**fields, run_id=run_id, prev_hash=prev)
        prev = event.hash
        yield event


def fault(event: Event, *, seq: int, prev_hash: str) -> str:
    """Why this is not the event of that number after the one with prev_hash; empty: it is."""
    if event.seq != seq:
        return f"event {seq} is missing"
    if event.prev_hash != prev_hash:
        return f"event {seq} does not continue the chain"
    if event.hash != event_hash(event):
        return f"event {seq} was changed after it was written"
    return ""


def verify(events: Iterable[Event]) -> Verification:
    """Walks a log in order and names the first event that does not fit: its number, its link or its hash."""
    prev, count = GENESIS, 0
    for event in events:
        count += 1
        if reason := fault(event, seq=count, prev_hash=prev):
            return Verification(ok=False, events=count, head=prev, first_bad=count, reason=reason)
        prev = event.hash
    return Verification(ok=True, events=count, head=prev)
