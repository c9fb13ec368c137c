"""Small changes of a state that several folds make."""

from collections.abc import Callable
from typing import Any

from anneal_contracts.base import Usage

from anneal_core.events import ItemStateName
from anneal_core.machine import IllegalEvent
from anneal_core.records import replace
from anneal_core.state import ItemState, RunState


def try_key(kind: str, item_id: str, attempt: int, generation: int) -> str:
    """What a command's failures are counted under."""
    return f"{kind}/{item_id}/{attempt}/{generation}"


def with_item(state: RunState, item_id: str, change: Callable[[ItemState], ItemState]) -> RunState:
    """The state with one item changed. Raises IllegalEvent where there is no such item."""
    item = state.items.get(item_id)
    if item is None:
        raise IllegalEvent(f"no item {item_id}")
    changed = change(item)
    state = replace(state, items={**state.items, item_id: changed})
    waits = changed.state is ItemStateName.WAITING
    if waits == (item_id in state.waiting):
        return state
    return replace(state, waiting=state.waiting | {item_id} if waits else state.waiting - {item_id})


def with_attempt(state: RunState, item_id: str, **changes: Any) -> RunState:
    """The state with the open attempt at an item changed. Raises IllegalEvent where none is under way."""

    def change(item: ItemState) -> ItemState:
        open_one = item.open_attempt
        if open_one is None:
            raise IllegalEvent(f"no attempt at {item_id} is under way")
        return replace(item, attempts=(*item.attempts[:-1], replace(open_one, **changes)))

    return with_item(state, item_id, change)


def spent(state: RunState, item_id: str, usage: Usage) -> RunState:
    """The state with what a model turn cost: every call is a step. item_id: the item that it was about, if any."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    state = replace(state, steps=state.steps + usage.calls, tokens=state.tokens + tokens)
    if item_id not in state.items:
        return state
    return with_item(state, item_id, lambda i: replace(i, calls=i.calls + usage.calls, tokens=i.tokens + tokens))
