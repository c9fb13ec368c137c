"""The bounds of a run and of an item: hard caps, and the reason in words where one is reached."""

from anneal_core.events import DecidedBy
from anneal_core.state import ItemState, RunState

# Calls that one model turn makes at the most, until an answer keeps its contract.
TURN_CALLS = 3
# Steps that an attempt takes: it is carried out, and it is judged.
_ATTEMPT_STEPS = 2


def out_of_budget(state: RunState, now: float) -> str:
    """Why no new attempt may begin; empty: it may."""
    if state.cancel:
        return f"cancelled: {state.cancel}"
    if state.halt:
        return state.halt
    paused_s = state.paused_s + (now - state.paused_at if state.paused else 0.0)
    if now - state.created_at - paused_s >= state.limits.time_budget_s:
        return f"budget_exhausted: the time budget of {state.limits.time_budget_s:g} s is used up"
    if state.steps + 3 > state.limits.max_steps:  # an attempt and the final scan must still fit
        return f"budget_exhausted: the cap of {state.limits.max_steps} steps is reached"
    return ""


def item_seconds(state: RunState, item: ItemState) -> float:
    """The time budget of an item: what such items took before, times a factor, within its bounds; 0: it has none."""
    limits = state.limits.item
    if not limits.time_s or not item.usual_s or not limits.time_factor:
        return limits.time_s
    return min(limits.time_s, max(limits.time_floor_s, limits.time_factor * item.usual_s))


def item_used_up(state: RunState, now: float, item: ItemState) -> tuple[DecidedBy, str] | None:
    """Why an item gets no further try: what decided it, and the words; None: it gets one."""
    seconds, limits = item_seconds(state, item), state.limits.item
    if seconds and item.started_at and now - item.started_at >= seconds:
        usual = f", where such an item took {item.usual_s:.0f} s before" if item.usual_s else ""
        return DecidedBy.ITEM_TIME, f"budget_exhausted: the item's {seconds:.0f} s are used up{usual}"
    if limits.steps and item.steps + _ATTEMPT_STEPS > limits.steps:
        return DecidedBy.ITEM_STEPS, f"budget_exhausted: the item's {limits.steps} steps are used up"
    return None


def model_used_up(state: RunState, item: ItemState) -> tuple[DecidedBy, str] | None:
    """Why an item gets no further turn of a model; None: it gets one."""
    bound = state.limits.item.tokens
    if bound and item.tokens >= bound:
        return DecidedBy.ITEM_TOKENS, f"budget_exhausted: {item.tokens} of the item's {bound} tokens are used"
    return None


def calls_left(state: RunState, item: ItemState | None = None) -> int:
    """Calls that a turn given out now may make: a call is a step, and the final scan must still fit."""
    left = state.limits.max_steps - state.steps - 1
    if item is not None and state.limits.item.steps:
        left = min(left, state.limits.item.steps - item.steps)
    return max(0, min(TURN_CALLS, left))


def tokens_left(state: RunState, item: ItemState) -> int:
    """Tokens that an item's turns may still take; 0: no bound."""
    bound = state.limits.item.tokens
    return max(1, bound - item.tokens) if bound else 0
