"""The simulated doers: processes that take commands from the bus, carry them out, and report.

One function a command kind, in HANDLERS; a kind that has none stops the simulation. What changes the target, what looks
at it and what asks a model have modules of their own.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from anneal_contracts.work import (
    SUBJECT_BY_KIND,
    Failed,
    Result,
)

from tests.simulation import effects, looks, turns
from tests.simulation.bus import Delivery, Message
from tests.simulation.checkpoint import CallError
from tests.simulation.kernel import Process, Steps
from tests.simulation.target import Busy, Fenced, Unreachable

if TYPE_CHECKING:
    from tests.simulation.world import World

# How long a worker goes on trying to hand a result in, and how long it waits between two tries.
_REPORT_WAITS_S = (0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0)

Handler = Callable[["World", Process, Message], Steps[Result]]


class Doers:
    """Two processes of each class of work."""

    def __init__(self, world: "World") -> None:
        self.world = world
        classes = ("action", "evaluation", "model", "post")
        self.processes = {c: [Process(f"{c}-{n}") for n in (1, 2)] for c in classes}
        for pair in self.processes.values():
            for process in pair:
                process.silent = world.bus.silent
        world.bus.take, world.bus.pick = self.take, self.pick

    def pick(self, message: Message, no: int) -> Process | None:
        """The process that gets a delivery: the other one the second time."""
        pair = self.processes[SUBJECT_BY_KIND[message.command.kind].split(".")[2]]
        for process in (pair[(no + 1) % 2], pair[no % 2]):
            if process.answers(self.world.kernel.now):
                return process
        return None

    def take(self, delivery: Delivery) -> Steps[None]:
        """The loop around a command: late ones are dropped, the result is reported, then the message acknowledged."""
        world, message, process = self.world, delivery.message, delivery.process
        command = message.command
        if command.deadline < world.kernel.now and world.rules.late_commands_are_dropped:
            world.tell(process.name, f"drops {message.label}: nobody waits any more")
            world.bus.acknowledge(delivery)
            return
        family = "evaluator" if process.name.startswith("evaluation") else "worker"
        yield from world.gap(process, family, f"{family}, before {message.label}")
        result = yield from self._in_time(process, message)
        yield from world.gap(process, family, f"{family}, before the report of {message.label}")
        if (yield from self._report(message, result)):
            world.bus.acknowledge(delivery)
        else:
            world.bus.ask_again(delivery)

    def _in_time(self, process: Process, message: Message) -> Steps[Result]:
        """Carries a command out; gives it up at its deadline."""
        command, kernel = message.command, self.world.kernel
        steps = HANDLERS[command.kind](self.world, process, message)
        try:
            while True:
                seconds = next(steps)
                left = command.deadline - kernel.now
                if seconds > left:
                    yield max(0.0, left)
                    steps.close()
                    raise CallError("deadline_exceeded", f"{command.kind} did not end in its time", retryable=True)
                yield seconds
        except StopIteration as done:
            result: Result = done.value
            return result
        except CallError as e:
            return Failed(command_id=command.command_id, reason=e.reason, message=e.message, retryable=e.retryable)
        except Fenced as e:
            return Failed(command_id=command.command_id, reason="fenced", message=str(e))
        except Busy as e:
            return Failed(command_id=command.command_id, reason="target_busy", message=str(e), retryable=True)
        except Unreachable as e:
            return Failed(command_id=command.command_id, reason="target_unreachable", message=str(e), retryable=True)

    def _report(self, message: Message, result: Result) -> Steps[bool]:
        """Hands a result in; false where nobody took it."""
        world, name = self.world, f"report of {message.label}"
        for wait in (*_REPORT_WAITS_S, None):
            yield 0.002
            fault = world.chance.one_of("bus", name, (("is lost", 0.01), ("is answered by nobody", 0.01)))
            taken = False if fault.endswith("lost") else (yield from world.shell.report(message, result))
            if taken and not fault:
                return True
            if wait is None:
                return False
            yield wait
        return False


HANDLERS: dict[str, Callable[..., Any]] = {
    "apply": effects.apply,
    "plan": turns.plan,
    "propose": turns.propose,
    "probe": turns.probe,
    "learn": turns.learn,
    "choose_item": turns.choose_item,
    "plan_item": turns.look_at_item,
    "review_item": turns.look_at_item,
    "reflect": turns.reflect,
    "discover": looks.discover,
    "evaluate": looks.evaluate,
    "evaluate_group": looks.evaluate_several,
    "gate": looks.evaluate_several,
    "resolve_deferred": looks.resolve_deferred,
    "look_again": looks.look_again,
    "verify": looks.verify,
    "check_health": looks.check_health,
}
