"""The usual way to resolve deferred items: look at each of them again, now that what they waited for has happened."""

from collections.abc import Sequence

from anneal_contracts.facts import DeferredItemOutcome, ItemDetail, Outcome

from anneal_skillkit.interfaces import Context, Emit, Evaluator


async def judged_again(
    evaluator: Evaluator, ctx: Context, reason: str, items: Sequence[ItemDetail], emit: Emit
) -> Sequence[DeferredItemOutcome]:
    """One outcome for each item, from its own check. reason: the mode in which they were kept, in the skill's words."""
    outcomes = []
    for n, item in enumerate(items, start=1):
        judged = await evaluator.evaluate(ctx, item.id)
        holds = judged.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE)
        outcome = DeferredItemOutcome(
            item_id=item.id,
            state="completed" if holds else "escalated",
            reason=f"{reason}: the check holds now" if holds else f"{reason}: the check still says {judged.outcome}",
        )
        await emit(f"{n} of {len(items)}: {item.id}", outcome)
        outcomes.append(outcome)
    return outcomes
