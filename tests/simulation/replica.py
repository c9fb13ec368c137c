"""One simulated supervisor: drives the run as services/supervisor does. Decide, evolve, commit, and only then send."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anneal_core import chain, commands
from anneal_core import events as ev
from anneal_core.approvals import open_questions
from anneal_core.attempts import candidate_of
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import Pending, RunState

from tests.simulation.bus import Message
from tests.simulation.direct import direct
from tests.simulation.kernel import Process, Signal, Steps, Task
from tests.simulation.store import StaleToken
from tests.simulation.witness import Violation

if TYPE_CHECKING:
    from anneal_contracts.facts import Action

    from tests.simulation.world import World

# Decisions that are committed together at the most, as services/supervisor has it.
_MAX_DECISIONS = 20
_LONGEST_PAUSE_S = 600.0


class Batch:
    """Events that will be committed together, and the state after them."""

    def __init__(self, run_id: str, state: RunState, at: float) -> None:
        self.state = state
        self.at = at
        self.events: list[chain.Event] = []
        # The state after each of them.
        self.states: list[RunState] = []
        self._run_id = run_id

    def add(self, payload: ev.Payload, actor: str) -> None:
        """One event more. Raises IllegalEvent where it does not fit."""
        event = chain.link(
            run_id=self._run_id,
            seq=self.state.seq + 1,
            at=self.at,
            type=payload.type,
            actor=actor,
            payload=payload.model_dump(mode="json"),
            prev_hash=self.state.head or chain.GENESIS,
        )
        self.state = evolve(self.state, event, payload)
        self.events.append(event)
        self.states.append(self.state)


class SetAside(Exception):
    """The database did not answer: the replica lets the run go."""


class Replica:
    """One supervisor process, and the run as far as it has it in hand."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process = Process(name)
        self.state = RunState()
        self.token = 0
        self.holds = False
        self._busy = False
        self._poke = Signal()
        self._direct: list[Task] = []

    def drop(self) -> None:
        """Forgets what it had in memory, and ends its own calls."""
        self.holds, self.state, self._busy = False, RunState(), False
        for task in self._direct:
            self.world.kernel.cancel(task)
        self._direct.clear()

    # --- the loop of services/supervisor/driver ----------------------------------------------------------------------

    def drive(self, token: int) -> Steps[None]:
        """Drives the run to its end, or until it is somebody else's."""
        self.token, self.holds, self._busy = token, True, True
        try:
            self.state = fold(self.world.store.log)
            self.world.witness.resumed(self.state)
            for pending in self.state.pending.values():
                self._send_again(pending)
            self._busy = False
            while not self.state.ended:
                if not (yield from self._exclusively(None, "engine")):
                    yield from self._wait()
        except (StaleToken, SetAside) as e:
            self.world.tell(self.process.name, f"lets the run go: {e}")
            self.drop()
            self.world.shell.look_for_owner()

    def _wait(self) -> Steps[None]:
        """Until something comes, or the clock brings something that the engine waits for."""
        state, now = self.state, self.world.kernel.now
        moments = [p.deadline for p in state.pending.values()]
        moments += [q.expires_at for q in open_questions(state).values()]
        if state.paused:
            moments.append(now + _LONGEST_PAUSE_S)
        elif moments:
            moments.append(state.created_at + state.paused_s + state.limits.time_budget_s)
        left = [m - now for m in moments if m > now]
        if not left:
            raise Violation("every wait has an end", f"nothing is under way in phase {state.phase}")
        yield from self.world.kernel.wait(self._poke, max(0.01, min(left)))

    def submit(self, payload: ev.Payload, actor: str) -> Steps[bool]:
        """Takes an event from outside in; false where it does not fit, which the log then tells."""
        while self._busy:
            yield 0.01
        if not self.holds:
            raise StaleToken("the run is being taken over")
        if self.state.ended:
            return False
        before = self.state
        try:
            yield from self._exclusively(payload, actor)
        except IllegalEvent as e:
            self.world.witness.refused(before, self.state)
            command_id = getattr(payload, "command_id", "")
            refused = ev.EventRefused(refused=payload.type, why=str(e)[:500], command_id=command_id)
            yield from self._exclusively(refused, actor)
            return False
        self.world.kernel.fire(self._poke)
        return True

    def _exclusively(self, payload: ev.Payload | None, actor: str) -> Steps[bool]:
        self._busy = True
        try:
            return (yield from self._advance(payload, actor))
        finally:
            self._busy = False

    def _advance(self, payload: ev.Payload | None, actor: str) -> Steps[bool]:
        """Takes an event in and decides on, as far as it goes: one commit. False: there was nothing to do."""
        batch = Batch(self.world.run_id, self.state, self.world.kernel.now)
        if payload is not None:
            batch.add(payload, actor)
        for _ in range(_MAX_DECISIONS):
            payloads = decide(batch.state, batch.at)
            for decided in payloads:
                try:
                    batch.add(decided, "engine")
                except IllegalEvent as e:
                    raise Violation("the engine's own events fit", f"{decided.type}: {e}") from e
            if not payloads:
                break
        if not batch.events:
            return False
        issued = [p for i, p in batch.state.pending.items() if i not in self.state.pending]
        work = [self._message(batch.state, p) for p in issued if p.kind not in commands.DIRECT_KINDS]
        yield from self._commit(batch, issued, work, _name_of(payload, issued))
        return True

    def _commit(self, batch: "Batch", issued: list[Pending], work: list[Message], name: str) -> Steps[None]:
        """Commits, and only then sends: what is not committed has not happened."""
        world = self.world
        if not world.rules.sent_after_commit:
            for message in work:
                world.bus.publish(message)
        yield from world.gap(self.process, "supervisor", f"supervisor, before commit of {name}")
        if world.chance.fault("database", f"database is away for {name}", 0.004):
            raise SetAside("the database is away")
        world.store.append(batch.events, work, self.token, ended=batch.state.ended)
        self.state = batch.state
        world.witness.committed(batch.events, batch.states)
        yield from world.gap(self.process, "supervisor", f"supervisor, after commit of {name}")
        self._flush(name)
        for pending in issued:
            if pending.kind in commands.DIRECT_KINDS:
                self._carry_out(batch.state, pending)

    def _flush(self, name: str) -> None:
        """The outbox: sends, then deletes; a replica that dies in between has sent twice."""
        outbox = self.world.store.outbox
        for message in outbox:
            self.world.bus.publish(message)
        if outbox and not self.world.chance.fault("supervisor", f"outbox keeps what was sent for {name}", 0.01):
            outbox.clear()

    def _send_again(self, pending: Pending) -> None:
        """The doers are idempotent by command id."""
        if pending.kind in commands.DIRECT_KINDS:
            self._carry_out(self.state, pending)
            return
        self.world.bus.publish(self._message(self.state, pending))

    def _message(self, state: RunState, pending: Pending) -> Message:
        action = self._action(state, pending) if pending.kind in ("apply", "undo") else None
        return Message(commands.build(state, pending, action), label_of(pending))

    def _action(self, state: RunState, pending: Pending) -> "Action":
        candidate = candidate_of(state, pending.item_id)
        blobs = self.world.scenario.blobs
        undo = blobs[candidate.undo_blob] if candidate.undo_blob else None
        if pending.kind == "undo":
            return commands.undo_of(candidate, undo or "")
        return commands.action_of(candidate, blobs[candidate.blob], undo)

    def _carry_out(self, state: RunState, pending: Pending) -> None:
        def steps() -> Steps[None]:
            result = yield from direct(self.world, state, pending)
            finished = ev.CommandFinished(command_id=pending.command_id, result=result)
            try:
                yield from self.submit(finished, "supervisor")
            except (StaleToken, SetAside) as e:
                self.world.tell(self.process.name, f"cannot hand a result in: {e}")

        self._direct.append(self.world.kernel.spawn(self.process, steps()))


def fold(log: Sequence[chain.Event]) -> RunState:
    """The state that a log gives."""
    state = RunState()
    for event in log:
        state = evolve(state, event)
    return state


def label_of(pending: Pending) -> str:
    """A command's name in stories and faults: the same in any run in which it comes."""
    where = f" {pending.item_id}/{pending.attempt}" if pending.item_id else ""
    if pending.kind not in ("check_health", "acquire", "discover", "record", "release") and not pending.item_id:
        where = f" {pending.generation}{pending.mode and ' '}{pending.mode}"
    return f"{pending.kind}{where} #{pending.try_no}"


def _name_of(payload: ev.Payload | None, issued: Sequence[Pending]) -> str:
    if issued:
        return label_of(issued[0])
    return f"{payload.type} {getattr(payload, 'item_id', '')}".rstrip() if payload else "a decision"
