"""Groups: scripts that memory proved on this kind of machine, applied one after the other and judged together.

Each script is an effect of its own; the look at the machine and the generation are shared. A group is all or nothing:
where anything in it is wrong, the machine goes back to before its first script, and its items are tried one by one.
"""

from anneal_contracts.facts import FixSource
from anneal_contracts.work import Candidate

from anneal_core import ladder, triage
from anneal_core.approvals import needed
from anneal_core.ordering import next_item, queued, unmet
from anneal_core.state import ItemState, RunState
from anneal_core.triage import Response


def fits(state: RunState, item: ItemState) -> Candidate | None:
    """The script with which an item may join a group: recalled, harmless to our reach, and tried for the first time."""
    if (
        item.attempts
        or item.detail.missing_input
        or unmet(state, item.detail.id)
        or state.access is None
        or not state.access.can_snapshot
    ):
        return None
    candidate = ladder.next_candidate(state, item)
    if candidate is None or candidate.source is not FixSource.RECALLED:
        return None
    alone = candidate.risks_reach or candidate.needs_reboot or needed(state, item, candidate)
    return None if alone else candidate


def next_member(state: RunState) -> str:
    """The item that joins the open group next; empty: it is complete."""
    item_id = next_item(state) if len(state.group) < state.limits.max_group else ""
    return item_id if item_id and fits(state, state.items[item_id]) else ""


def worth_opening(state: RunState, item_id: str) -> bool:
    """Whether this item, the next in order, and the one after it may both be in a group."""
    if state.limits.max_group < 2 or not fits(state, state.items[item_id]):
        return False
    following = next((i for i in queued(state) if i != item_id), "")
    return bool(following) and fits(state, state.items[following]) is not None


def objection(state: RunState) -> str:
    """Why the open group cannot stand, in words that name the item; empty: nothing speaks against it so far."""
    for item_id in state.group:
        attempt = state.items[item_id].open_attempt
        if attempt is None or attempt.applied is None:
            continue
        diagnosis = triage.of_apply(attempt.applied)
        if diagnosis is None and attempt.evaluated is not None:
            diagnosis = triage.of_evaluation(attempt.applied, attempt.evaluated, state.policy)
        if diagnosis is not None and diagnosis.response is not Response.KEEP:
            return f"{item_id}: {diagnosis.mode}: {diagnosis.detail}"
    return ""
