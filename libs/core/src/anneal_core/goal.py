"""Goal assessment: how much of the engine a piece of work needs, by signals that anybody can count.

simple: few items, none waits for another, each with a script at hand. complex: a chain of three waves or more, or a
model has to write for every fifth item. medium: everything between. What is not simple has a gate behind every wave but
the last, whose gate is the final scan.
"""

from collections.abc import Sequence

from anneal_core import events as ev
from anneal_core import ladder
from anneal_core.state import RunState

_FEW_ITEMS = 10
_MANY_WAVES = 3
_LARGE_SHARE = 0.2


def assess(state: RunState, waves: Sequence[Sequence[str]]) -> ev.GoalAssessed:
    """The level with the reasons for it."""
    items = [item_id for wave in waves for item_id in wave]
    unknown = [i for i in items if not _has_script(state, i)]
    share = len(unknown) / len(items) if items else 0.0
    authored = share if state.model_may == "author" else 0.0
    reasons = [f"{len(items)} items in {len(waves)} waves", f"{len(unknown)} without a script that may run"]
    if state.model_may == "author":
        reasons.append("a model may write scripts")
    if len(waves) >= _MANY_WAVES or authored > _LARGE_SHARE:
        return ev.GoalAssessed(level="complex", reasons=tuple(reasons), gates=len(waves) > 1)
    if len(items) <= _FEW_ITEMS and len(waves) < 2 and not authored:
        return ev.GoalAssessed(level="simple", reasons=tuple(reasons))
    return ev.GoalAssessed(level="medium", reasons=tuple(reasons), gates=len(waves) > 1)


def _has_script(state: RunState, item_id: str) -> bool:
    return any(not ladder.obstacle(state, c) for c in state.ladders.get(item_id, ()))
