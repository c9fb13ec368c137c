"""Time as a dependency, so that tests can hold it still."""

import time
from typing import Protocol


class Clock(Protocol):
    """now(): Unix seconds, may jump. monotonic(): seconds since an unknown start, never goes back."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward. Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError("a clock does not go back; use jump() for wall time")
        self._now += seconds
        self._monotonic += seconds

    def jump(self, now: float) -> None:
        """Sets wall time alone, as NTP does."""
        self._now = now
