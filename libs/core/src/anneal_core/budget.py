"""The bounds of a run and of an item: hard caps, and the reason in words where one is reached."""

from anneal_core.events import DecidedBy
from anneal_core.state import ItemState, Pending, RunState

# Commands that count as a step when they are given out; model turns count by the calls they made.
STEP_KINDS = frozenset(
    {
        "discover",
        "apply",
        "undo",
        "evaluate",
        "evaluate_group",
        "gate",
        "look_again",
        "resolve_deferred",
        "probe",
        "verify",
    }
)
# Commands that run beside the main line.
BACKGROUND = frozenset({"reflect"})

# Calls that one model turn makes at the most, until an answer keeps its contract.
TURN_CALLS = 3
# Steps that an attempt takes: it is carried out, and it is judged.
_ATTEMPT_STEPS = 2
# Steps that follow on a command whatever it finds, beside the last scan: on an apply its judgement.
_JUDGED_AFTER = frozenset({"apply"})
_UNDONE_AFTER = frozenset({"apply", "evaluate"})
# What begins or goes on with new work; the rest brings to its end what was begun.
_NEW_WORK = frozenset({"apply", "choose_item", "plan_item", "review_item", "propose", "probe", "learn", "look_again"})


def out_of_budget(state: RunState, now: float) -> str:
    """Why no new attempt may begin; empty: it may."""
    if state.cancel:
        return f"cancelled: {state.cancel}"
    if state.halt:
        return state.halt
    if time_is_up(state, now):
        return f"budget_exhausted: the time budget of {state.limits.time_budget_s:g} s is used up"
    if not steps_left_for(state, _ATTEMPT_STEPS + _undo_steps(state)):
        return f"budget_exhausted: the cap of {state.limits.max_steps} steps is reached"
    return ""


def time_is_up(state: RunState, now: float) -> bool:
    """The time of the run is used up; while it was paused none was."""
    paused_s = state.paused_s + (now - state.paused_at if state.paused else 0.0)
    return now - state.created_at - paused_s >= state.limits.time_budget_s


def steps_left_for(state: RunState, steps: int) -> bool:
    """Whether so many steps fit into the cap, with the final scan behind them and words under way beside them."""
    return _spoken_for(state) + steps + 1 <= state.limits.max_steps


def may_try_again(state: RunState, pending: Pending, at: float) -> bool:
    """Whether a command that failed may be given out again, as far as time and steps go: its try is a step like any."""
    if state.engine < 2:
        return True
    if pending.kind in _NEW_WORK and time_is_up(state, at):
        return False
    if pending.kind not in STEP_KINDS:
        return True
    follows = (pending.kind in _JUDGED_AFTER) + (pending.kind in _UNDONE_AFTER) * _undo_steps(state)
    item, limit = state.items.get(pending.item_id), state.limits.item.steps
    if item is not None and limit and item.steps + 1 + follows > limit and pending.kind != "undo":
        return False
    # The last scan needs none behind it, and without its undo a change would stand that nobody judged.
    last = pending.kind == "verify"
    return steps_left_for(state, follows if last else 1 + follows)


def room_for_another_go(state: RunState, at: float) -> bool:
    """Whether an action that was cut off may be carried out and judged anew, as far as time and steps go."""
    return state.engine < 2 or (not time_is_up(state, at) and steps_left_for(state, _ATTEMPT_STEPS))


def _undo_steps(state: RunState) -> int:
    """Taking back is a step where it takes a script of its own."""
    return int(state.engine > 1 and state.access is not None and not state.access.can_snapshot)


def _spoken_for(state: RunState) -> int:
    """Steps that were taken, and those that a turn under way beside the main line may take."""
    beside = sum(p.kind in BACKGROUND for p in state.pending.values()) if state.engine > 1 else 0
    return state.steps + beside * TURN_CALLS


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
    if limits.steps and item.steps + _ATTEMPT_STEPS + _undo_steps(state) > limits.steps:
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
    left = state.limits.max_steps - _spoken_for(state) - 1
    if item is not None and state.limits.item.steps:
        left = min(left, state.limits.item.steps - item.steps)
    return max(0, min(TURN_CALLS, left))


def tokens_left(state: RunState, item: ItemState) -> int:
    """Tokens that an item's turns may still take; 0: no bound."""
    bound = state.limits.item.tokens
    return max(1, bound - item.tokens) if bound else 0
