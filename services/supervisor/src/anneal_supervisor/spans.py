"""The spans of a run, its items and their attempts, told from the events that end them."""

from collections.abc import Mapping, Sequence

from anneal_core import events as ev
from anneal_core.chain import Event
from anneal_core.state import Pending, RunState
from anneal_runtime.story import Place

# Events that end something; the others need not be read again.
_ENDS = frozenset({"attempt_ended", "item_closed", "run_ended"})


def place_of(run_id: str, pending: Pending) -> Place:
    """Where a command of the supervisor's own stands in the run's story."""
    return Place(run_id=run_id, item_id=pending.item_id, attempt=pending.attempt)


def tell(state: RunState, events: Sequence[Event]) -> None:
    """Tells what ended with these events, which were committed; state is the one after them."""
    for event in events:
        if event.type not in _ENDS:
            continue
        match ev.parse(event.payload):
            case ev.AttemptEnded() as p:
                _attempt(state, p, event.at)
            case ev.ItemClosed() as p:
                _item(state, p, event.at)
            case ev.RunEnded() as p:
                _run(state, p, event.at)


def _run(state: RunState, p: ev.RunEnded, at: float) -> None:
    facts: Mapping[str, str | int] = {"anneal.state": p.state, "anneal.reason": p.reason, "anneal.steps": state.steps}
    failed = p.reason if p.state == "failed" else None
    Place(run_id=state.run_id).tell(state.created_at, at, facts, failed=failed)


def _attempt(state: RunState, p: ev.AttemptEnded, at: float) -> None:
    attempt = state.items[p.item_id].attempts[p.attempt - 1]
    facts: Mapping[str, str | int] = {
        "anneal.attempt": p.attempt,
        "anneal.rung": attempt.candidate.source.value,
        "anneal.ending": p.ending.value,
        "anneal.failure_mode": p.mode,
    }
    place = Place(run_id=state.run_id, item_id=p.item_id, attempt=p.attempt)
    place.tell(attempt.started_at, at, facts, failed=None if p.ending is ev.Ending.KEPT else p.mode)


def _item(state: RunState, p: ev.ItemClosed, at: float) -> None:
    attempts = state.items[p.item_id].attempts
    began = attempts[0].started_at if attempts else at
    facts: Mapping[str, str | int] = {
        "anneal.state": p.state.value,
        "anneal.rung": p.rung,
        "anneal.attempts": len(attempts),
    }
    Place(run_id=state.run_id, item_id=p.item_id).tell(began, at, facts)
