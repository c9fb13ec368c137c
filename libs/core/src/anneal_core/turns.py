"""The model's part in the loop of an item: a plan, facts, a script, a lesson, a second look. Each is bounded.

What is asked of a model, and in which order, is decided here; what it says is an answer among others and never a
verdict. A turn that fails costs what it cost, and the item goes on without it.
"""

from itertools import islice

from anneal_contracts.facts import CoreMode, FixSource
from anneal_contracts.turns import Strategy

from anneal_core import events as ev
from anneal_core import ladder
from anneal_core.budget import out_of_budget
from anneal_core.issue import Payloads, issue
from anneal_core.ordering import queued, unmet, waits_for
from anneal_core.state import Engagement, ItemState, Known, RunState

# More items than these are not offered at once: a prompt has to hold them.
_MOST_OFFERED = 12


def engaged(state: RunState) -> bool:
    """Whether the Architect takes part: a model may author, its bounds allow it, and the goal is worth it."""
    return state.model_may == "author" and state.goal != "simple"


# --- the Architect picks ---------------------------------------------------------------------------------------------


def choice(state: RunState, now: float) -> Payloads:
    """The Architect picks among items that are ready, where several are; nothing: the order decides."""
    if not engaged(state) or state.choices >= state.limits.roles.choices or state.chosen:
        return ()
    if out_of_budget(state, now):
        return ()
    ready = offered(state)
    if len(ready) < 2 or ready == state.offered or _begun(state.items[ready[0]]):
        return ()
    return issue(state, now, "choose_item", offered=ready, generation=state.choices + 1)


def offered(state: RunState) -> tuple[str, ...]:
    """The items that may come next and that want the model, in order; none where the next has a script at hand.

    The Architect breaks ties, it does not overrule the skill's order.
    """
    ready = (state.items[i] for i in queued(state) if not waits_for(state, i) and not unmet(state, i))
    first = next(ready, None)  # most often it decides alone: a run may have thousands of items behind it
    if first is None or not _wants_the_model(state, first):
        return ()
    ties = (i for i in ready if i.detail.priority == first.detail.priority and _wants_the_model(state, i))
    return (first.detail.id, *(i.detail.id for i in islice(ties, _MOST_OFFERED - 1)))


def _wants_the_model(state: RunState, item: ItemState) -> bool:
    return not item.detail.missing_input and ladder.next_candidate(state, item) is None


def _begun(item: ItemState) -> bool:
    return item.started_at > 0


# --- the rung of the model -------------------------------------------------------------------------------------------


def lesson(state: RunState, now: float, item: ItemState) -> Payloads:
    """The Reflector looks at the model's attempt that just failed; nothing: there is none, or it was looked at."""
    last = item.attempts[-1] if item.attempts else None
    if last is None or last.candidate.source is not FixSource.MODEL or last.mode == CoreMode.GROUP_REVERTED:
        return ()
    if last.ending in (None, ev.Ending.KEPT) or state.model_may != "author":
        return ()
    if len(item.lessons) >= state.limits.roles.lessons or any(x.attempt == last.number for x in item.lessons):
        return ()
    return issue(state, now, "learn", item_id=item.detail.id, attempt=last.number)


def model_turn(state: RunState, now: float, item: ItemState) -> Payloads:
    """The next step of the model's rung: an answer to its question, a plan, a second look, or a script."""
    item_id = item.detail.id
    if item.asked:
        return issue(state, now, "probe", item_id=item_id, attempt=len(item.facts) + 1)
    number = len(item.engagements) + 1
    if engaged(state) and not current(item) and number <= state.limits.roles.engagements:
        return issue(state, now, "plan_item", item_id=item_id, attempt=number)
    if why := second_look(state, item):
        return issue(state, now, "review_item", item_id=item_id, attempt=number, why=why)
    return issue(state, now, "propose", item_id=item_id, attempt=len(item.attempts) + len(item.proposals) + 1)


def current(item: ItemState) -> tuple[Engagement, ...]:
    """The Architect's looks at the item as it stands; those before a gate reopened it are of another time."""
    return tuple(e for e in item.engagements if e.attempts >= item.since)


def known(item: ItemState) -> tuple[Known, ...]:
    """The facts that still hold: of the time since a gate reopened the item."""
    return tuple(k for k in item.facts if k.attempts >= item.since)


def strategy(item: ItemState) -> Strategy | None:
    """The plan that the item is worked by."""
    return next((e.said.strategy for e in reversed(current(item)) if e.said.strategy is not None), None)


def second_look(state: RunState, item: ItemState) -> str:
    """The evidence on which the Architect is asked again; empty: there is none, or it has looked often enough."""
    looks, limits = current(item), state.limits.roles
    if not engaged(state) or not looks or len(item.engagements) >= limits.engagements:
        return ""
    since = looks[-1]
    turns, lessons = item.proposals[since.proposals :], item.lessons[since.lessons :]
    if turns and turns[-1].mode == CoreMode.MISSING_INPUT:
        return f"the Worker says that an input is missing: {turns[-1].detail}"
    alike = max((t.similarity for t in turns), default=0.0)
    if alike >= limits.similarity:
        return f"plateau: a script is {alike:.2f} like an earlier one (bound {limits.similarity:.2f})"
    alike = max((x.said.similarity for x in lessons), default=0.0)
    if alike >= limits.similarity:
        return f"plateau: a lesson is {alike:.2f} like an earlier one (bound {limits.similarity:.2f})"
    tried = [a for a in item.attempts[since.attempts :] if a.mode != CoreMode.GROUP_REVERTED]
    gaps = sum(a.mode == CoreMode.EVALUATOR_GAP for a in tried)
    if gaps >= limits.review_gaps:
        return f"{gaps} attempts ran well and left the check failing"
    empty = len(turns) - sum(a.candidate.source is FixSource.MODEL for a in tried)
    if len(tried) + empty >= limits.review_failures:
        return f"{len(tried) + empty} tries failed since the last look"
    return ""


def given_up(state: RunState, item: ItemState) -> tuple[ev.DecidedBy, str, str] | None:
    """Who ended the item by a word: decided by, reason, what is missing. None: nobody did."""
    looks = current(item)
    if looks and looks[-1].said.decision == "escalate":
        said = looks[-1].said
        return ev.DecidedBy.ARCHITECT, f"the Architect gave it up: {said.reason}", said.missing_input
    last = item.proposals[-1] if item.proposals else None
    if state.engine < 2 or last is None or last.mode != CoreMode.MISSING_INPUT:
        return None
    if looks and looks[-1].said.decision and looks[-1].proposals == len(item.proposals):  # it was seen, and goes on
        return None
    return None if second_look(state, item) else (ev.DecidedBy.MISSING_INPUT, last.detail, last.detail)


def tries_left(state: RunState, item: ItemState) -> int:
    """Attempts that the item may still have."""
    return max(0, state.limits.max_attempts - ladder.tries_used(item))
