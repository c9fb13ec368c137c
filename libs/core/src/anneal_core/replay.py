"""Replay: folds a log and decides everything again, without touching anything; the first difference is told."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from anneal_core import events as ev
from anneal_core.chain import Event
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import RunState

# The actor of what the engine decided; everything else came from outside and is taken as it is.
ENGINE_ACTOR = "engine"


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


def replay(log: Iterable[Event]) -> Replay:
    """Replays a log from its first event. Never raises for what the log holds: that is a difference."""
    state, decisions, expected = RunState(), 0, list[dict[str, Any]]()
    for event in log:
        if event.actor == ENGINE_ACTOR:
            expected = expected or [_plain(p) for p in decide(state, event.at)]
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
