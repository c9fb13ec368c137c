"""The simulated supervisors: two replicas that share the run by lease. One drives it; the other takes over by folding
the log when the first is silent. What others ask of them goes to the one that answers.
"""

from typing import TYPE_CHECKING

from anneal_contracts.facts import DeferredItemOutcome
from anneal_core import events as ev
from anneal_core.finish import settled_in

from tests.simulation.bus import Message
from tests.simulation.checkpoint import CallError
from tests.simulation.kernel import Process, Steps, Unanswered
from tests.simulation.replica import Replica, SetAside
from tests.simulation.store import RUN_LEASE_S, StaleToken

if TYPE_CHECKING:
    from anneal_contracts.work import Result

    from tests.simulation.world import World

_BEAT_S = 5.0
_CALL_TIMEOUT_S = 10.0


class Shell:
    """Both replicas, and what others ask of them."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.replicas = [Replica(world, "supervisor-1"), Replica(world, "supervisor-2")]
        for replica in self.replicas:
            replica.process.silent = self._silent
            replica.process.reborn = lambda _: self.look_for_owner()

    def start(self) -> None:
        """The first replica claims the run."""
        self._claim(self.replicas[0])

    def _claim(self, replica: Replica) -> None:
        store, kernel = self.world.store, self.world.kernel
        token = store.claim(replica.process.name, kernel.now)
        self.world.tell(replica.process.name, f"claims the run under token {token}")
        replica.drop()
        kernel.spawn(replica.process, replica.drive(token))

    def driver(self) -> Replica | None:
        """The replica that drives the run and answers, if any."""
        now = self.world.kernel.now
        for replica in self.replicas:
            current = replica.token == self.world.store.token
            if replica.holds and current and replica.process.answers(now):
                return replica
        return None

    def drives(self) -> bool:
        """Whether somebody renews the lease of the target now."""
        return self.driver() is not None

    def _silent(self, process: Process) -> None:
        """A replica died or stands still: the run is free when its lease has run out."""
        replica = next(r for r in self.replicas if r.process is process)
        if not process.alive:
            replica.drop()
        self.look_for_owner()

    def look_for_owner(self) -> None:
        """Another replica may claim the run once the lease has run out."""
        kernel, store = self.world.kernel, self.world.store
        wait = self.world.chance.between(f"lease runs out after token {store.token}", RUN_LEASE_S - _BEAT_S, 19.0)

        def look() -> None:
            if store.ended or self.driver() is not None:
                return
            free = [r for r in self.replicas if r.process.answers(kernel.now) and not r.holds]
            if free:
                self._claim(free[0])
            elif not any(r.holds for r in self.replicas):
                kernel.call_at(kernel.now + _BEAT_S, look)

        kernel.call_at(kernel.now + wait, look)

    def report(self, message: Message, result: "Result") -> Steps[bool]:
        """A doer's result; true where the run has taken or refused it, false where nobody drives the run now."""
        finished = ev.CommandFinished(command_id=message.command.command_id, result=result)
        return (yield from self._ask(finished, "worker"))

    def say(self, payload: ev.Payload) -> Steps[None]:
        """A person's word; they try again until somebody takes it."""
        while not (yield from self._ask(payload, "person")):
            yield 5.0

    def progress(self, command_id: str, outcome: DeferredItemOutcome | None) -> Steps[tuple[str, ...]]:
        """What is told of deferred items on the way; the items that are settled. Raises CallError."""
        settled = yield from self._settled(command_id)
        if outcome is not None and outcome.item_id not in settled:
            told = ev.DeferredProgress(command_id=command_id, outcome=outcome)
            if not (yield from self._ask(told, "evaluator")):
                raise CallError("unavailable", "the run is being taken over", retryable=True)
            settled = yield from self._settled(command_id)
        return settled

    def _settled(self, command_id: str) -> Steps[tuple[str, ...]]:
        yield 0.002
        replica = self.driver()
        if replica is None:
            raise CallError("unavailable", "nobody drives the run", retryable=True)
        pending = replica.state.pending.get(command_id)
        if pending is None:
            raise CallError("failed_precondition", "the run no longer waits for this command")
        return settled_in(replica.state, pending.mode)

    def _ask(self, payload: ev.Payload, actor: str) -> Steps[bool]:
        """A call to whoever drives the run; false where it has to be made again."""
        if self.world.store.ended:
            return True
        replica = self.driver()
        if replica is None:
            return False

        def steps() -> Steps[bool]:
            try:
                yield from replica.submit(payload, actor)
            except (StaleToken, SetAside):
                return False
            return True

        try:
            return (yield from self.world.kernel.ask(replica.process, steps(), _CALL_TIMEOUT_S))
        except Unanswered:
            return False
