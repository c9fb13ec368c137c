"""A failing run made smaller until nothing can be left out, and told as a list of what happened."""

from collections.abc import Callable, Sequence

from tests.simulation.rules import Rules
from tests.simulation.world import Story, play

# Runs that making one story smaller may take.
MOST_TRIES = 400


def shrink(seed: int, rules: Rules | None = None) -> Story:
    """The same failure with fewer items and fewer faults, told. Raises ValueError where the seed does not fail."""
    found = play(seed, rules=rules)
    if not found.rule:
        raise ValueError(f"seed {seed} does not fail")
    tries = 0

    def fails(items: Sequence[str], faults: Sequence[str]) -> bool:
        nonlocal tries
        tries += 1
        gone = [i for i in found.items if i not in items]
        return tries <= MOST_TRIES and play(seed, rules=rules, only=faults, without=gone).rule == found.rule

    items = smallest(found.items, lambda some: fails(some, found.faults))
    faults = smallest(found.faults, lambda some: fails(items, some))
    items = smallest(items, lambda some: fails(some, faults))
    return play(seed, rules=rules, only=faults, without=[i for i in found.items if i not in items], told=True)


def smallest(given: Sequence[str], still: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """A part of these of which nothing can be left out, found by halves, quarters and so on (delta debugging)."""
    kept, pieces = list(given), 2
    while kept:
        size = max(1, len(kept) // pieces)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            if still(rest):
                kept, pieces = rest, max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces *= 2
    return tuple(kept)


def told(story: Story) -> str:
    """The story for people: what does not hold, the faults that are needed for it, and every step."""
    head = [f"seed {story.seed}: {story.rule}", f"  {story.detail}", f"items: {', '.join(story.items) or 'none'}"]
    head += ["faults that it takes:", *(f"  {fault}" for fault in story.faults or ("none",))]
    return "\n".join([*head, "what happened (seconds since the start):", *(f"  {line}" for line in story.lines)])
