"""Which items a round has, and in what order: deterministic, whatever the order they were found in."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain

from anneal_contracts.facts import ItemDetail, Outcome

from anneal_core.events import ItemStateName
from anneal_core.graph import suggested
from anneal_core.state import RunState

# States of an item that has no end yet.
UNSETTLED = frozenset({ItemStateName.QUEUED, ItemStateName.ACTIVE, ItemStateName.WAITING})


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
    failing = {i for i, o in state.became_applicable().items() if o is not Outcome.PASS and i in state.found}
    failing |= {i for i in state.newly if i not in state.items}
    new = [state.found[i] for i in failing]
    new = sorted((d for d in new if d.id not in left_out), key=lambda d: (d.priority, d.id))
    asked_for = [d for d in new if not wanted or d.id in wanted]
    if state.spec.limit:
        asked_for = asked_for[: max(0, state.spec.limit - len(state.order))]
    return (*regressed, *asked_for)


def inapplicable_before(state: RunState) -> tuple[str, ...]:
    """The rules that did not apply before and that the run's specification may take in, in order of their ids."""
    assert state.spec is not None
    wanted = set(state.spec.item_ids)
    before = (i for i, o in state.outcomes_before.items() if o is Outcome.NOT_APPLICABLE)
    return tuple(sorted(i for i in before if (not wanted or i in wanted) and i not in state.spec.exclusions))


def in_order(state: RunState, chosen: Sequence[str]) -> tuple[str, ...]:
    """The chosen items in the order of a round: the skill's, but behind what undid them in earlier runs."""
    return suggested(chosen, state.after_those) if state.after_those else tuple(chosen)


def queued(state: RunState) -> Iterator[str]:
    """The items that wait for their turn, in order: what a gate reopened of earlier waves, and the present wave."""
    return (i for i in reached(state) if state.items[i].state is ItemStateName.QUEUED)


def reached(state: RunState) -> Iterable[str]:
    """The round's items up to the present wave, in order."""
    return chain.from_iterable(state.waves[: state.wave + 1]) if state.waves else state.order


def next_item(state: RunState) -> str:
    """The first queued item that no rule holds back, or, where all are held back, the first; empty: none is left."""
    first = ""
    for item_id in queued(state):
        if not waits_for(state, item_id):
            return item_id
        first = first or item_id
    return first


def waits_for(state: RunState, item_id: str) -> str:
    """Why an item has to wait by the skill's ordering rules; empty: it need not."""
    rules = state.policy.order_rules if state.policy else ()
    for rule in rules:
        if not any(fnmatchcase(item_id, glob) for glob in rule.items):
            continue
        others = [i for i in state.order if i != item_id and _is_among(state.items[i].detail, rule.behind)]
        others = [i for i in others if not any(fnmatchcase(i, glob) for glob in rule.items)]
        settled = sum(state.items[i].state not in UNSETTLED for i in others)
        if others and settled < rule.share * len(others):
            return f"{rule.why} ({settled} of {len(others)} settled)"
    return ""


def _is_among(detail: ItemDetail, globs: Sequence[str]) -> bool:
    """Whether a glob names the item, or, as `category:GLOB`, its category."""
    for glob in globs:
        kind, _, rest = glob.partition(":")
        if fnmatchcase(detail.category, rest) if kind == "category" else fnmatchcase(detail.id, glob):
            return True
    return False


def unmet(state: RunState, item_id: str) -> str:
    """A dependency that came to nothing, in words; empty: all that it depends on holds."""
    for other in state.items[item_id].detail.depends_on:
        there = state.items.get(other)
        if there is not None and there.state in (ItemStateName.ESCALATED, ItemStateName.SKIPPED):
            return f"depends on {other}, which was {there.state}"
    return ""
