"""Which items a round has, and in what order: deterministic, whatever the order they were found in."""

from anneal_contracts.facts import ItemDetail, Outcome

from anneal_core.state import RunState


def to_plan(state: RunState) -> tuple[ItemDetail, ...]:
    """The items of this round: in the first all that the specification selects, later what is to be mended."""
    if state.round > 0:
        return to_mend(state)
    assert state.spec is not None
    wanted = set(state.spec.item_ids)
    chosen = [d for d in state.found.values() if not wanted or d.id in wanted]
    chosen.sort(key=lambda d: (d.priority, d.id))
    if state.spec.limit:
        kept = [d for d in chosen if d.id not in state.spec.exclusions][: state.spec.limit]
        return tuple(kept)
    return tuple(chosen)


def to_mend(state: RunState) -> tuple[ItemDetail, ...]:
    """What a further round takes: all that regressed, and of what became applicable and fails, what was asked for."""
    assert state.spec is not None
    wanted, left_out = set(state.spec.item_ids), state.spec.exclusions
    regressed = [state.found[i] for i in state.regressions() if i in state.found]
    new = [state.found[i] for i, o in state.became_applicable().items() if o is not Outcome.PASS and i in state.found]
    new = sorted((d for d in new if d.id not in left_out), key=lambda d: (d.priority, d.id))
    asked_for = [d for d in new if not wanted or d.id in wanted]
    if state.spec.limit:
        asked_for = asked_for[: max(0, state.spec.limit - len(state.order))]
    return (*regressed, *asked_for)


def next_item(state: RunState) -> str:
    """The first queued item in order; empty: none is left."""
    return next((i for i in state.order if state.items[i].state == "queued"), "")
