"""The bounds of a run: hard caps, and the reason in words where one is reached."""

from anneal_core.state import RunState


def out_of_budget(state: RunState, now: float) -> str:
    """Why no new attempt may begin; empty: it may."""
    if state.cancel:
        return f"cancelled: {state.cancel}"
    if state.halt:
        return state.halt
    if now - state.created_at >= state.limits.time_budget_s:
        return f"budget_exhausted: the time budget of {state.limits.time_budget_s:g} s is used up"
    if state.steps + 3 > state.limits.max_steps:  # an attempt and the final scan must still fit
        return f"budget_exhausted: the cap of {state.limits.max_steps} steps is reached"
    return ""
