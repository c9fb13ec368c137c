"""Reading a run's stored log back: each event is held against the chain before it is believed."""

from collections.abc import Sequence

from anneal_core import chain
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import RunState
from pydantic import ValidationError

from anneal_supervisor.errors import damaged
from anneal_supervisor.store import Store

# Events that are held in memory at once.
_PAGE = 500


async def stored_state(store: Store, run_id: str) -> RunState:
    """The state that the stored log gives. Raises NotFound; DataLoss where the log is not what was written."""
    head = await store.head(run_id)
    state = RunState()
    while batch := await store.events(run_id, after=state.seq, limit=_PAGE):
        state = _believed(run_id, batch, state)
    # A log that others went on with since the head was read may be longer, never shorter.
    if state.seq < head.seq:
        raise damaged(run_id, state.seq + 1, f"it ends at event {state.seq}, but {head.seq} were written")
    if state.seq == head.seq and state.head != head.hash:
        raise damaged(run_id, head.seq, f"event {head.seq} is not the one that was written")
    return state


def _believed(run_id: str, batch: Sequence[chain.Event], state: RunState) -> RunState:
    for event in batch:
        seq = state.seq + 1
        if why := chain.fault(event, seq=seq, prev_hash=state.head or chain.GENESIS):
            raise damaged(run_id, seq, why)
        try:
            state = evolve(state, event)
        except (IllegalEvent, ValidationError) as e:
            why = f"event {seq} does not follow from those before it: {_words(e)}"
            raise damaged(run_id, seq, why) from e
    return state


def _words(error: IllegalEvent | ValidationError) -> str:
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
