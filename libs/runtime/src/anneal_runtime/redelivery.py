"""When a message whose handler failed is delivered again, and when it is given up. Pure: the consumer asks and obeys.

A dead process is another matter: the server gives its message to another when the heartbeats stop, at once and without
these waits. Only how often a message may be delivered in all is counted over both.
"""

import random
from dataclasses import dataclass
from pathlib import PurePath

from anneal_runtime.errors import Crashed


@dataclass(frozen=True, kw_only=True)
class Redelivery:
    """waits_s: before the second, third ... delivery; there is one delivery more than waits.

    poison_after: deliveries of a message that cannot be read or crashes its handler: a newer process may do better, so
    it is more than one. jitter: share by which a wait is longer or shorter, so that failures do not march in step.
    """

    waits_s: tuple[float, ...] = (10.0, 30.0, 60.0)
    poison_after: int = 3
    jitter: float = 0.2

    @property
    def most(self) -> int:
        """Deliveries in all."""
        return len(self.waits_s) + 1

    def wait_s(self, deliveries: int) -> float:
        """Seconds after this delivery's failure until the next one; past the last wait, that one again."""
        base = self.waits_s[min(deliveries, len(self.waits_s)) - 1] if self.waits_s else 0.0
        return base * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311  # jitter, not a secret

    def is_last(self, deliveries: int, *, poison: bool) -> bool:
        """Whether a message that fails on this delivery is given up. poison: the failure will hardly heal."""
        return deliveries >= (min(self.poison_after, self.most) if poison else self.most)

    def outlived(self, deliveries: int) -> bool:
        """Whether all deliveries were used up before this one, so that nobody may try again: doers died with it."""
        return deliveries > self.most


def crashed(e: Exception) -> Crashed:
    """What a handler's defect is told as: kind and place. Its text may hold anything and stays in the log."""
    place, trace = "", e.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place, trace = f"{PurePath(code.co_filename).name}:{trace.tb_lineno} {code.co_name}", trace.tb_next
    return Crashed(f"{type(e).__name__} at {place}; the service's log has the rest" if place else type(e).__name__)
