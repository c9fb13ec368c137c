"""The simulated bus: at least once, in no order, and now and then not at all; what nobody acknowledges comes again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anneal_contracts.work import Command

from tests.simulation.kernel import Process, Steps

if TYPE_CHECKING:
    from tests.simulation.world import World

# After so many seconds of silence a message goes to another process, and after so many deliveries to nobody.
ACK_WAIT_S = 6.0
MAX_DELIVERIES = 3
DUPLICATES_S = 120.0
_TROUBLE = (("is lost", 0.012), ("is doubled", 0.03), ("is late", 0.02), ("is nearly too late", 0.01))
# Wait before another delivery where a handler asked for it.
BACKOFF_S = (10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Message:
    """A command on its way. label: its name in stories and faults."""

    command: Command
    label: str


@dataclass(slots=True)
class Delivery:
    """One handing over of a message."""

    message: Message
    no: int
    process: Process
    over: bool = False


class Bus:
    """One stream of work. take: how a process begins on a message."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.take: Callable[[Delivery], Steps[None]]
        self.pick: Callable[[Message, int], Process | None]
        self._published: dict[str, float] = {}
        self._under_way: list[Delivery] = []

    def publish(self, message: Message) -> None:
        """Stores a message, unless the same was stored a short while ago."""
        world, now = self.world, self.world.kernel.now
        known = self._published.get(message.command.command_id)
        if known is not None and now - known < DUPLICATES_S:
            return
        self._published[message.command.command_id] = now
        fault = world.chance.one_of("bus", f"message {message.label}", _TROUBLE).rpartition(": ")[2]
        if fault == "is lost":
            return
        left = message.command.deadline - now
        low, high = {"is late": (0.5, 60.0), "is nearly too late": (left - 3.0, left)}.get(fault, (0.001, 0.02))
        self._plan(message, 1, world.chance.between(f"{message.label} travels", max(0.001, low), high))
        if fault == "is doubled":
            self._plan(message, 1, world.chance.between(f"{message.label} travels again", 0.001, left + 20.0))

    def _plan(self, message: Message, no: int, wait: float) -> None:
        self.world.kernel.call_at(self.world.kernel.now + wait, lambda: self._deliver(message, no))

    def _deliver(self, message: Message, no: int) -> None:
        if no > MAX_DELIVERIES:
            self.world.tell("bus", f"parks {message.label} after {MAX_DELIVERIES} deliveries")
            return
        process = self.pick(message, no)
        if process is None:
            self._plan(message, no, 1.0)
            return
        delivery = Delivery(message, no, process)
        self._under_way.append(delivery)
        self.world.kernel.spawn(process, self.take(delivery))

    def acknowledge(self, delivery: Delivery) -> None:
        """The message is done with, unless the word of it is lost."""
        if delivery.over:
            return
        if self.world.chance.fault("bus", f"acknowledgement of {delivery.message.label} is lost", 0.01):
            self._again(delivery, ACK_WAIT_S)
            return
        self._end(delivery)

    def ask_again(self, delivery: Delivery) -> None:
        """The handler could not report: another delivery, later."""
        if not delivery.over:
            self._again(delivery, BACKOFF_S[min(delivery.no, len(BACKOFF_S)) - 1])

    def silent(self, process: Process) -> None:
        """A process died or stands still: what it had goes to another after the wait."""
        for delivery in [d for d in self._under_way if d.process is process]:
            if not process.alive:
                self._again(delivery, ACK_WAIT_S)
            elif process.still_until - self.world.kernel.now > ACK_WAIT_S:
                self._plan(delivery.message, delivery.no + 1, ACK_WAIT_S)
                delivery.no += 1

    def _again(self, delivery: Delivery, wait: float) -> None:
        self._end(delivery)
        self._plan(delivery.message, delivery.no + 1, wait)

    def _end(self, delivery: Delivery) -> None:
        delivery.over = True
        self._under_way.remove(delivery)
