"""Replay: folds a log and decides everything again, without touching anything; the first difference is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from anneal_core import events as ev
from anneal_core.chain import Event
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.fork import past_head
from anneal_core.machine import IllegalEvent
from anneal_core.records import replace
from anneal_core.state import RunState

# The actor of what the engine decided; everything else came from outside and is taken as it is.
ENGINE_ACTOR = "engine"
FORKED = "run_forked"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where the log and the rules part. diff: unified, of the payloads as indented JSON."""

    seq: int
    reason: str
    diff: str = ""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What replaying gave: the state that the log leads to, and how many decisions were made again."""

    state: RunState
    decisions: int
    difference: Difference | None = None


def replay(log: Sequence[Event]) -> Replay:
    """Replays a log from its first event. Never raises for what the log holds: that is a difference.

    What a fork has from the runs before it was decided under their ids, and must be theirs by its hash.
    """
    state, decisions, expected = RunState(), 0, list[dict[str, Any]]()
    for n, (event, run_id) in enumerate(zip(log, _ids(log), strict=True)):
        if event.type == FORKED:
            expected = []  # the other run went on with them, this one does not
            if past_head(log[:n], str(event.payload.get("parent"))) != event.payload.get("hash"):
                found = Difference(seq=event.seq, reason="the events before it are not those of the run that it names")
                return Replay(state=state, decisions=decisions, difference=found)
        if event.actor == ENGINE_ACTOR:
            expected = expected or [_plain(p) for p in decide(replace(state, run_id=run_id), event.at)]
            decided = expected.pop(0) if expected else None
            recorded = _normal(event.payload)
            if decided != recorded:
                return Replay(state=state, decisions=decisions, difference=_difference(event.seq, decided, recorded))
            decisions += 1
        elif expected:
            reason = f"the engine decides {expected[0]['type']} here, and the log goes on with {event.type}"
            return Replay(state=state, decisions=decisions, difference=Difference(seq=event.seq, reason=reason))
        try:
            state = evolve(state, event)
        except (IllegalEvent, ValueError) as e:
            found = Difference(seq=event.seq, reason=f"the log's own event does not fit: {e}")
            return Replay(state=state, decisions=decisions, difference=found)
    return Replay(state=state, decisions=decisions)


def _ids(log: Sequence[Event]) -> list[str]:
    """The id of the run in which each event was written first."""
    run_id, found = log[-1].run_id if log else "", list[str]()
    for event in reversed(log):
        found.append(run_id)
        if event.type == FORKED:
            run_id = str(event.payload.get("parent"))
    return found[::-1]


def _plain(payload: ev.Payload) -> dict[str, Any]:
    return payload.model_dump(mode="json")


def _normal(payload: dict[str, Any]) -> dict[str, Any]:
    """A stored payload with the fields that were added since at their defaults."""
    try:
        return _plain(ev.parse(payload))
    except ValueError:
        return payload


def _difference(seq: int, decided: dict[str, Any] | None, recorded: dict[str, Any]) -> Difference:
    if decided is None:
        return Difference(seq=seq, reason=f"the log has {recorded['type']} where the engine decides nothing")
    reason = f"the engine decides {decided['type']} where the log has {recorded['type']}"
    if decided["type"] == recorded["type"]:
        reason = f"the engine decides another {decided['type']}"
    lines = unified_diff(_lines(recorded), _lines(decided), "log", "decided", lineterm="")
    return Difference(seq=seq, reason=reason, diff="\n".join(lines))


def _lines(payload: dict[str, Any]) -> list[str]:
    return json.dumps(payload, indent=1, sort_keys=True).splitlines()
