"""Bounds of one item, and of what the model roles may do. 0 switches a bound, or what it bounds, off.

The defaults are what logs from before these fields mean; a new run gets the supervisor's settings.
"""

from anneal_contracts.facts import Frozen


class ItemLimits(Frozen):
    """Bounds of one item beside its attempts."""

    # Longest time in seconds, from its first command on.
    time_s: float = 0.0
    # Where memory knows how long such items took: so many times that, and never less than the floor.
    time_factor: float = 0.0
    time_floor_s: float = 0.0
    steps: int = 0
    # Tokens of all its model turns, prompts and answers together.
    tokens: int = 0


class RoleLimits(Frozen):
    """What the model roles may do beside writing a script."""

    # Questions about the target that the Worker may ask: of one item, and in one answer.
    probes: int = 0
    probes_now: int = 0
    # Failed attempts of the model's at one item that the Reflector looks at.
    lessons: int = 0
    # Times in a run that the Architect picks the next item.
    choices: int = 0
    # Times that the Architect looks at one item: the first makes the plan, the others are on evidence.
    engagements: int = 0
    # The evidence: so many tries since it last looked that failed, or ended in an evaluator gap ...
    review_failures: int = 2
    review_gaps: int = 2
    # ... or a script or a lesson that is so like an earlier one (0 to 1).
    similarity: float = 0.8
