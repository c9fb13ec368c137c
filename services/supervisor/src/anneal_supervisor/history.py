"""Reading a run's stored log back: each event is held against the chain before it is believed."""

import asyncio
from collections.abc import AsyncIterator

from anneal_core import chain
from anneal_core.evolve import evolve
from anneal_core.fork import past_head
from anneal_core.machine import IllegalEvent
from anneal_core.state import RunState
from pydantic import ValidationError

from anneal_supervisor.errors import damaged
from anneal_supervisor.store import Store

# Events that are held in memory at once.
_PAGE = 500


async def stored_state(store: Store, run_id: str) -> RunState:
    """The state that the stored log gives. Raises NotFound; DataLoss where the log is not what was written."""
    state = RunState()
    async for _, after in told(store, run_id):
        state = after
    return state


async def told(store: Store, run_id: str) -> AsyncIterator[tuple[chain.Event, RunState]]:
    """The events of the stored log, each with the state that it leads to. Raises as stored_state does."""
    head = await store.head(run_id)
    state = RunState()
    while batch := await store.events(run_id, after=state.seq, limit=_PAGE):
        for event in batch:
            state = _believed(run_id, event, state)
            yield event, state
    # A log that others went on with since the head was read may be longer, never shorter.
    if state.seq < head.seq:
        raise damaged(run_id, state.seq + 1, f"it ends at event {state.seq}, but {head.seq} were written")
    if state.seq == head.seq and state.head != head.hash:
        raise damaged(run_id, head.seq, f"event {head.seq} is not the one that was written")


def _believed(run_id: str, event: chain.Event, state: RunState) -> RunState:
    seq = state.seq + 1
    if why := chain.fault(event, seq=seq, prev_hash=state.head or chain.GENESIS):
        raise damaged(run_id, seq, why)
    try:
        return evolve(state, event)
    except (IllegalEvent, ValidationError) as e:
        why = f"event {seq} does not follow from those before it: {_words(e)}"
        raise damaged(run_id, seq, why) from e


async def is_of_its_parent(store: Store, state: RunState) -> bool:
    """Whether the events that a fork shares with another run are those of the hash that it names; True for no fork."""
    origin, past = state.origin, list[chain.Event]()
    if origin is None:
        return True
    while batch := await store.events(state.run_id, after=len(past), limit=min(_PAGE, origin.seq - len(past))):
        past += batch
    return await asyncio.to_thread(past_head, past, origin.parent) == origin.hash


def _words(error: IllegalEvent | ValidationError) -> str:
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
