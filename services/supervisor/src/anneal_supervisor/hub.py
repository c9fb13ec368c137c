"""Tells waiters inside this process that a run has new events. A waiter that misses a call looks again by itself."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from anneal_supervisor.store import Left

_LOOK_AGAIN_S = 1.0


class Hub:
    """A counter a run; waiting is for the counter to move. on_notify gets what was left to be sent, for the outbox."""

    def __init__(self, on_notify: Callable[[Sequence[Left]], None]) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._on_notify = on_notify

    def notify(self, run_id: str, left: Sequence[Left] = ()) -> None:
        """Something was committed for this run, and left these messages to be sent."""
        self._counts[run_id] += 1
        for waiter in self._waiters.pop(run_id, ()):
            waiter.set()
        self._on_notify(left)

    def mark(self, run_id: str) -> int:
        """Where the counter stands; take it before reading."""
        return self._counts[run_id]

    async def wait(self, run_id: str, mark: int) -> None:
        """Returns when the counter has moved past mark, or after a second (another replica may drive the run)."""
        if self._counts[run_id] != mark:
            return
        event = asyncio.Event()
        self._waiters[run_id].add(event)
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters[run_id].discard(event)
