"""What a run taught beside its scripts: lessons of failed attempts, and how long items took that ended well."""

from anneal.memory.v1 import memory_pb2 as mem
from anneal_core.events import Ending
from anneal_core.state import ItemState, RunState


def lessons(state: RunState) -> list[mem.Lesson]:
    """The Reflector's lessons, in the run's order."""
    return [
        mem.Lesson(
            item_id=item_id,
            lesson=said.lesson,
            mechanism=said.mechanism,
            bans=said.bans,
            certainty=said.certainty,
        )
        for item_id in state.order
        for thought in state.items[item_id].lessons
        if (said := thought.said.lesson) is not None
    ]


def times(state: RunState) -> list[mem.ItemTime]:
    """Seconds of the items that were completed by a change of this run."""
    found = [(state.items[i], _seconds(state.items[i])) for i in state.order]
    return [mem.ItemTime(item_id=i.detail.id, category=i.detail.category, seconds=s) for i, s in found if s > 0]


def _seconds(item: ItemState) -> float:
    last = item.attempts[-1] if item.attempts else None
    if last is None or last.ending is not Ending.KEPT:
        return 0.0
    # A group's member waits for the others: its own time is what its parts took.
    taken = sum(last.parts.values()) if last.group else last.ended_at - item.started_at
    return round(max(0.0, taken), 3)
