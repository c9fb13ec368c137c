"""The ladder of fix sources: which candidate an item tries next, and why it has none."""

from collections import Counter

from anneal_contracts.facts import CoreMode, FixSource, Mutability
from anneal_contracts.work import Candidate

from anneal_core.approvals import refusal
from anneal_core.events import Ending
from anneal_core.state import Attempt, ItemState, RunState
from anneal_core.triage import TRIES_OF_A_SCRIPT, Response


def own_attempts(item: ItemState) -> tuple[Attempt, ...]:
    """The attempts that say something of the item as it stands; one taken back with its group does not."""
    return tuple(a for a in item.attempts[item.since :] if a.mode != CoreMode.GROUP_REVERTED)


def tried(item: ItemState) -> frozenset[str]:
    """Hashes of the actions that already had their attempt, or all the tries that a mode's `retry` allows."""
    tries = Counter(a.candidate.hash for a in own_attempts(item))
    again = {a.candidate.hash for a in own_attempts(item) if a.response == Response.RETRY}
    return frozenset(h for h, n in tries.items() if h not in again or n >= TRIES_OF_A_SCRIPT)


def obstacle(state: RunState, candidate: Candidate, item: ItemState | None = None) -> str:
    """Why this candidate may not run on this target; empty: it may, though a person may have to agree first."""
    can_snapshot = state.access is not None and state.access.can_snapshot
    if not candidate.allowed:
        return f"{CoreMode.POLICY_DENIED}: {candidate.policy}"
    if candidate.mutability is Mutability.FORBIDDEN:
        return f"{CoreMode.POLICY_DENIED}: a {candidate.mutability} action never runs"
    if candidate.mutability is Mutability.DESTRUCTIVE:
        if state.engine < 2:
            return f"{CoreMode.POLICY_DENIED}: a {candidate.mutability} action needs an approval"
        if item is not None and (refused := refusal(item, candidate)):
            return f"{CoreMode.POLICY_DENIED}: {refused}"
    if candidate.banned:
        return f"banned: {candidate.banned}"
    if not can_snapshot and not candidate.undo_blob:
        return "the target has no snapshots and this fix has no script that takes it back"
    return ""


def next_candidate(state: RunState, item: ItemState) -> Candidate | None:
    """The first rung that was not tried and may run, if need be once a person has agreed."""
    done = tried(item)
    # A script that held until something undid it comes first.
    held = [a.candidate.hash for a in item.attempts[: item.since] if a.ending is Ending.KEPT][-1:]
    for candidate in sorted(item.ladder, key=lambda c: c.hash not in held):
        if candidate.hash not in done and not obstacle(state, candidate, item):
            return candidate
    return None


def fruitless_turns(item: ItemState) -> int:
    """Model turns that led to no attempt of their own: no acceptable answer, a refused script, or a known one."""
    return len(item.proposals) - sum(1 for a in item.attempts if a.candidate.source is FixSource.MODEL)


def tries_used(item: ItemState, waiting: Candidate | None = None) -> int:
    """What counts against the item's limit of attempts. waiting: the rung that is next; the turn that wrote it counts
    when it is tried.
    """
    fruit = waiting is not None and waiting.source is FixSource.MODEL
    return len(own_attempts(item)) + fruitless_turns(item) - fruit


def gaps(item: ItemState) -> int:
    """Attempts after which all was well except the check."""
    return sum(1 for a in item.attempts if a.mode == CoreMode.EVALUATOR_GAP)


def why_stuck(state: RunState, item: ItemState) -> str:
    """The reason of an escalation in one sentence, from the facts of the item's story."""
    if item.detail.missing_input:
        return f"{CoreMode.MISSING_INPUT}: {item.detail.missing_input}"
    if item.attempts and item.attempts[-1].response == Response.ESCALATE:
        return f"{item.attempts[-1].mode}: {item.attempts[-1].detail or 'the skill wants a person to look at it'}"
    told = []
    if attempts := own_attempts(item):
        tries = ", ".join(f"{a.candidate.title} ({a.mode})" for a in attempts)
        told.append(f"{len(attempts)} of {state.limits.max_attempts} attempts failed: {tries}")
    if fruitless := fruitless_turns(item):
        last = item.proposals[-1]
        refused = last.candidate.policy if last.candidate else ""
        why = last.detail or refused or "it repeated itself"
        told.append(f"{fruitless} model turns led to nothing; the last: {last.mode or CoreMode.POLICY_DENIED}: {why}")
    if told:
        return "; ".join(told)
    obstacles = [obstacle(state, c, item) for c in item.ladder]
    if any(obstacles):
        return "; ".join(dict.fromkeys(o for o in obstacles if o))
    if state.model_may == "author":
        return "no fix in the content or in the skill, and the model wrote none"
    return "no fix in the content or in the skill, and no model that may write one"
