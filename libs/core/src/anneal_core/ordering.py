"""Which items a round has, and in what order: deterministic, whatever the order they were found in."""

from anneal_contracts.work import ItemDetail

from anneal_core.state import RunState


def to_plan(state: RunState) -> tuple[ItemDetail, ...]:
    """The items of this round: in the first all that the specification selects, later the regressions."""
    if state.round > 0:
        return tuple(state.found[i] for i in state.regressions() if i in state.found)
    assert state.spec is not None
    wanted = set(state.spec.item_ids)
    chosen = [d for d in state.found.values() if not wanted or d.id in wanted]
    chosen.sort(key=lambda d: (d.priority, d.id))
    if state.spec.limit:
        kept = [d for d in chosen if d.id not in state.spec.exclusions][: state.spec.limit]
        return tuple(kept)
    return tuple(chosen)


def next_item(state: RunState) -> str:
    """The first queued item in order; empty: none is left."""
    return next((i for i in state.order if state.items[i].state == "queued"), "")
