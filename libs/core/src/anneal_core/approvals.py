"""People's word on destructive actions: bound to run, item, attempt and action; it expires; until then others go on."""

from anneal_contracts.facts import Mutability
from anneal_contracts.work import Candidate

from anneal_core import events as ev
from anneal_core.issue import Payloads
from anneal_core.state import Approval, ItemState, RunState


def needed(state: RunState, item: ItemState, candidate: Candidate) -> bool:
    """Whether a person has to agree before this candidate may be the item's next attempt."""
    if state.engine < 2 or candidate.mutability is not Mutability.DESTRUCTIVE:
        return False
    return not any(a.state == "granted" and _is_for(a, item, candidate) for a in item.approvals)


def refusal(item: ItemState, candidate: Candidate) -> str:
    """Why a person's word, or its absence, keeps this candidate from running; empty: nothing was said against it."""
    for approval in reversed(item.approvals):
        if approval.action_hash == candidate.hash and approval.state in ("denied", "expired"):
            return f"{approval.state} by {approval.by}: {approval.reason}" if approval.by else approval.reason
    return ""


def _is_for(approval: Approval, item: ItemState, candidate: Candidate) -> bool:
    return approval.action_hash == candidate.hash and approval.attempt == len(item.attempts) + 1


def ask(state: RunState, now: float, item: ItemState, candidate: Candidate) -> Payloads:
    """The question; the item waits, and the others go on."""
    asked = ev.ApprovalAsked(
        item_id=item.detail.id,
        attempt=len(item.attempts) + 1,
        action_hash=candidate.hash,
        title=candidate.title,
        expires_at=round(now + state.limits.approval_ttl_s, 3),
    )
    return (asked,)


def expired(state: RunState, now: float) -> Payloads:
    """The questions that nobody answered in time."""
    return tuple(
        ev.ApprovalExpired(item_id=item_id, action_hash=asked.action_hash)
        for item_id, asked in open_questions(state).items()
        if asked.expires_at <= now
    )


def open_questions(state: RunState) -> dict[str, Approval]:
    """Item -> what a person is asked about it now."""
    waiting = (i for i in state.order if i in state.waiting) if state.waiting else ()
    return {i: state.items[i].approvals[-1] for i in waiting}
