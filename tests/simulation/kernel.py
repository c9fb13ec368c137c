"""Virtual time: tasks are generators that yield the seconds they sleep; a task belongs to a process that may die.

Nothing here waits for a real clock, and nothing depends on the order of a set or of the machine: the same calls give
the same run.
"""

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")
# A task: yields seconds to sleep, may return a value to the task that waits for it by `yield from`.
Steps = Generator[float, None, T]

# A run that keeps so many events going does not end.
MAX_EVENTS = 20_000


class Died(Exception):
    """Raised inside a task where its process is killed."""


class TooBusy(Exception):
    """The run does not come to an end."""


class Unanswered(Exception):
    """A call to another process had no answer: it may have been carried out, or not, or still be."""


class Process:
    """A process of the system: it may die, with all its tasks, or stand still for a while, and come back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.still_until = 0.0
        self.tasks: dict[int, Task] = {}
        # Called when it dies or stands still: those who hear no more of it.
        self.silent: Callable[[Process], None] | None = None
        self.reborn: Callable[[Process], None] | None = None

    def answers(self, now: float) -> bool:
        """Whether a call to it would get an answer now."""
        return self.alive and self.still_until <= now


class Task:
    """A generator under way."""

    __slots__ = ("done", "ended", "failed", "n", "process", "steps", "turn", "value")

    def __init__(self, n: int, process: Process, steps: Steps[Any]) -> None:
        self.n = n
        self.process = process
        self.steps = steps
        self.done = False
        # It ended with its process, not by itself.
        self.failed = False
        # Counts its sleeps: an alarm set for an earlier one does not ring.
        self.turn = 0
        self.value: Any = None
        self.ended: Signal | None = None


class Signal:
    """Something that tasks wait for."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: list[Task] = []


class Kernel:
    """The clock and everything that is planned."""

    def __init__(self, start: float) -> None:
        self.now = start
        self.events = 0
        # Seconds that processes stood still or were away, in sum: a run may take so much longer.
        self.lost_s = 0.0
        self.current: Task | None = None
        self._heap: list[tuple[float, int, Task | None, int, Callable[[], None] | None]] = []
        self._count = 0

    def call_at(self, at: float, call: Callable[[], None]) -> None:
        """Calls back at that time."""
        self._count += 1
        heappush(self._heap, (at, self._count, None, 0, call))

    def spawn(self, process: Process, steps: Steps[Any]) -> Task:
        """Starts a task now, after what is going on."""
        self._count += 1
        task = Task(self._count, process, steps)
        process.tasks[task.n] = task
        heappush(self._heap, (self.now, self._count, task, 0, None))
        return task

    def wake(self, task: Task) -> None:
        """Ends a task's sleep."""
        task.turn += 1
        self._count += 1
        heappush(self._heap, (self.now, self._count, task, task.turn, None))

    def wait(self, signal: Signal, longest: float) -> Steps[None]:
        """Sleeps until the signal comes, or for so many seconds."""
        task = self.current
        assert task is not None
        signal.tasks.append(task)
        yield longest
        if task in signal.tasks:
            signal.tasks.remove(task)

    def fire(self, signal: Signal) -> None:
        """Wakes all who wait for the signal."""
        for task in signal.tasks:
            self.wake(task)
        signal.tasks.clear()

    def ask(self, process: Process, steps: Steps[T], longest: float) -> Steps[T]:
        """A call that another process carries out. Raises Unanswered."""
        if not process.answers(self.now):
            raise Unanswered(process.name)
        task = self.spawn(process, steps)
        task.ended = Signal()
        yield from self.wait(task.ended, longest)
        if not task.done or task.failed:
            raise Unanswered(process.name)
        answer: T = task.value
        return answer

    def run(self) -> None:
        """Goes on until nothing is planned any more. Raises TooBusy where that does not come."""
        while self._heap:
            at, _, task, turn, call = heappop(self._heap)
            if call is not None:
                self.now = max(self.now, at)
                call()
                continue
            assert task is not None
            if task.done or task.turn != turn:
                continue
            if task.process.still_until > at:
                self._count += 1
                heappush(self._heap, (task.process.still_until, self._count, task, turn, None))
                continue
            self.now = max(self.now, at)
            self.events += 1
            if self.events > MAX_EVENTS:
                raise TooBusy(f"still at work after {MAX_EVENTS} events")
            self._step(task)

    def _step(self, task: Task) -> None:
        self.current = task
        try:
            seconds = next(task.steps)
        except StopIteration as end:
            task.value = end.value
            self._over(task)
        except Died:
            self.kill(task.process)
        else:
            task.turn += 1
            self._count += 1
            heappush(self._heap, (self.now + seconds, self._count, task, task.turn, None))
        finally:
            self.current = None

    def _over(self, task: Task) -> None:
        task.done = True
        task.process.tasks.pop(task.n, None)
        if task.ended is not None:
            self.fire(task.ended)

    def cancel(self, task: Task) -> None:
        """Ends a task where it stands."""
        if not task.done and task is not self.current:
            task.failed = True
            self._over(task)
            task.steps.close()

    def kill(self, process: Process, away_s: float = 1.0) -> None:
        """Ends a process and all that it was doing; its supervisor starts it again after a while."""
        process.alive = False
        for task in list(process.tasks.values()):
            task.failed = True
            self._over(task)
            if task is not self.current:
                task.steps.close()
        self.lost_s += away_s
        if process.silent:
            process.silent(process)
        self.call_at(self.now + away_s, lambda: self._start_again(process))

    def _start_again(self, process: Process) -> None:
        process.alive = True
        if process.reborn:
            process.reborn(process)

    def stop(self, process: Process, seconds: float) -> None:
        """A process stands still: it holds what it has, does nothing, and goes on later as if nothing had been."""
        process.still_until = max(process.still_until, self.now + seconds)
        self.lost_s += seconds
        if process.silent:
            process.silent(process)
