"""Luck, by name: the same seed and name give the same answer, whatever else was asked before.

A fault is a decision for the worse. Each has a name of its own, so that it can be left out of a run without changing
the luck of any other: that is how a failing run is made smaller.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

# What may go wrong. A run draws a rate for each family, so that some runs have one kind of trouble and no other.
T = TypeVar("T")

FAMILIES = ("supervisor", "database", "bus", "worker", "evaluator", "checkpoint", "memory", "model", "script", "target")
_RATES = ((0.35, 0.0), (0.8, 1.0), (1.0, 3.0))


class Chance:
    """only: names of the faults that may happen; None: whatever the seed brings."""

    def __init__(self, seed: int, only: frozenset[str] | None = None) -> None:
        self._key = seed.to_bytes(8, "big", signed=True)
        self._only = only
        self._asked: dict[str, int] = {}
        # The faults that happened, in their order, with their families.
        self.fired: dict[str, str] = {}
        self.rates = {family: self._rate(family) for family in FAMILIES}

    def _rate(self, family: str) -> float:
        luck = self.draw(f"weather of {family}")
        return next(rate for up_to, rate in _RATES if luck < up_to)

    def draw(self, name: str) -> float:
        """A number of [0, 1) that depends on the seed and the name alone."""
        return int.from_bytes(blake2b(name.encode(), digest_size=6, key=self._key).digest(), "big") / 2**48

    def between(self, name: str, low: float, high: float) -> float:
        """A number between low and high."""
        return low + (high - low) * self.draw(name)

    def pick(self, name: str, options: Sequence[T]) -> T:
        """One of the options, each as likely as the others."""
        return options[int(self.draw(name) * len(options))]

    def fault(self, family: str, name: str, probability: float) -> bool:
        """Whether this fault happens here; asked again under the same name it is another fault."""
        return bool(self.one_of(family, name, (("", probability),)))

    def one_of(self, family: str, name: str, faults: Sequence[tuple[str, float]]) -> str:
        """Which of the faults happens here, by its full name; empty: none."""
        rate = self.rates[family]
        if not rate:
            return ""
        nth = self._asked[name] = self._asked.get(name, 0) + 1
        if nth > 1:
            name = f"{name} (time {nth})"
        luck = self.draw(name) / rate
        for what, probability in faults:
            if luck < probability:
                full = f"{name}: {what}" if what else name
                if self._only is not None and full not in self._only:
                    return ""
                self.fired[full] = family
                return full
            luck -= probability
        return ""
