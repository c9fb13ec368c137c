"""The simulated checkpoint service: the target's lease, generations taken and brought back, the ledger of effects.

The rules are those of services/checkpoint. What it does outside its database takes time and can be cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.simulation.kernel import Process, Signal, Steps, Task
from tests.simulation.target import Permit, Saved, Unreachable

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE_S = 120.0
CALL_S = 0.004


class CallError(Exception):
    """A call that failed, as the error table has it."""

    def __init__(self, reason: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


@dataclass(slots=True)
class Operation:
    """A snapshot or a restore under its idempotency key."""

    key: str
    kind: str
    generation: int
    force: bool
    token: int
    number: int
    state: str = "intended"
    restored: bool = False
    task: Task | None = None
    ended: Signal = field(default_factory=Signal)
    error: CallError | None = None


# What may follow a state of the ledger.
_NEXT = {
    "intended": ("applied", "reverted", "unknown"),
    "applied": ("reverted", "unknown"),
    "unknown": ("applied", "reverted"),
    "reverted": (),
}


@dataclass(slots=True)
class Effect:
    """A row of the ledger. generation: the newest when it was begun; undoes: key of what it takes back."""

    generation: int
    undoes: str
    state: Literal["intended", "applied", "reverted", "unknown"] = "intended"


class Checkpoint:
    """One service, one target."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.process = Process("checkpoint")
        self.process.silent = self._died
        self.process.reborn = self._recover
        self.holder = ""
        self.token = 0
        self.lease_until = 0.0
        self.saved: dict[int, Saved] = {}
        self.operations: dict[str, Operation] = {}
        self.effects: dict[str, Effect] = {}
        self.newest_order = 0
        self._locked = False
        self._unlocked = Signal()

    # --- leases ----------------------------------------------------------------------------------------------------

    def _live(self) -> bool:
        """Whether the holder's lease holds. A run that is driven renews it all the time."""
        now = self.world.kernel.now
        if self.holder == self.world.run_id and self.world.shell.drives():
            self.lease_until = now + LEASE_S
        return bool(self.holder) and self.lease_until > now

    def acquire(self, run_id: str) -> Steps[int]:
        """Gives the fencing token. Raises CallError."""
        yield from self._call("acquire")
        try:
            self.world.target.connect()
        except Unreachable as e:
            raise CallError("target_unreachable", str(e), retryable=True) from e
        if self.holder != run_id:
            if self._live():
                raise CallError("leased", f"held by {self.holder}")
            self.token += 1
            self.holder = run_id
        self.lease_until = self.world.kernel.now + LEASE_S
        return self.token

    def taken_over(self, run_id: str) -> int:
        """The lease for another run, where it is free and was held before; else 0."""
        if self._live() or not self.token or self._locked or self._unfinished() is not None:
            return 0
        self.token += 1
        self.holder, self.lease_until = run_id, self.world.kernel.now + 10 * LEASE_S
        return self.token

    def release(self, run_id: str, token: int) -> Steps[None]:
        """Gives the lease back. Raises CallError where another run has it."""
        yield from self._call("release")
        if not self.holder and self.token == token:
            return
        if (self.holder, self.token) != (run_id, token):
            raise CallError("stale_token", f"held by {self.holder}")
        self.holder = ""
        for effect in self.effects.values():
            if effect.state == "intended":
                effect.state = "unknown"

    def _check_holder(self, token: int) -> None:
        if not (self._live() and self.holder == self.world.run_id and self.token == token):
            raise CallError("stale_token", f"the lease of token {token} is gone")

    def _check_order(self, number: int) -> None:
        """An order that is older than one carried out since comes from somebody who slept."""
        if number < self.newest_order and self.world.rules.old_commands_are_refused:
            raise CallError("stale_token", f"command {number} is older than command {self.newest_order}")
        self.newest_order = max(self.newest_order, number)

    def _call(self, what: str) -> Steps[None]:
        yield CALL_S
        if not self.process.answers(self.world.kernel.now) or self.world.chance.fault(
            "checkpoint", f"checkpoint does not answer to {what}", 0.01
        ):
            raise CallError("unavailable", "checkpoint does not answer", retryable=True)

    # --- effects ---------------------------------------------------------------------------------------------------

    def begin_effect(self, permit: Permit) -> Steps[bool]:
        """Commits that a change is intended; true where it was begun before. Raises CallError."""
        yield from self._call("begin effect")
        self._check_holder(permit.token)
        if self._unfinished() is not None:
            raise CallError("failed_precondition", "the target is in the middle of a restore")
        self._check_order(permit.seq)
        known = self.effects.get(permit.key)
        if known is not None and known.state in ("reverted", "unknown"):
            raise CallError("failed_precondition", f"the effect is {known.state}")
        if known is None:
            self.effects[permit.key] = Effect(max(self.saved, default=0), permit.undoes)
        return known is not None

    def finish_effect(
        self, key: str, state: Literal["applied", "reverted", "unknown"], exit_code: int = 0
    ) -> Steps[None]:
        """Records what came of a change. Raises CallError."""
        yield from self._call("finish effect")
        known = self.effects[key]
        if state != known.state and state not in _NEXT[known.state]:
            raise CallError("failed_precondition", f"the effect is {known.state}")
        known.state = state
        taken_back = self.effects.get(known.undoes)
        if taken_back is not None and taken_back.state != "reverted":
            taken_back.state = "reverted" if state == "applied" and exit_code == 0 else "unknown"

    # --- snapshots and restores ------------------------------------------------------------------------------------

    def operate(self, kind: str, key: str, generation: int, force: bool, token: int, number: int) -> Steps[Operation]:
        """Carries a snapshot or a restore out, once under its key. Raises CallError."""
        yield from self._call(kind)
        op = self.operations.get(key)
        if op is not None and op.state == "done":
            return op
        self._check_holder(token)
        if kind == "restore" and generation not in self.saved:
            raise CallError("not_found", f"no generation {generation}")
        self._check_order(number)
        if op is None:
            op = self.operations[key] = Operation(key, kind, generation, force, token, number)
        if op.task is None or op.task.done:
            op.error = None
            work = self._take if kind == "snapshot" else self._bring_back
            op.task = self.world.kernel.spawn(self.process, self._alone(op, work))
        while op.state != "done":
            yield from self.world.kernel.wait(op.ended, 100.0)
            if op.error is not None:
                raise op.error
            if op.task.failed:
                raise CallError("unavailable", "checkpoint died", retryable=True)
        return op

    def _alone(self, op: Operation, work: Callable[[Operation], Steps[None]]) -> Steps[None]:
        """Holds the lease's row while it works: one operation after the other."""
        kernel = self.world.kernel
        while self._locked:
            yield from kernel.wait(self._unlocked, 100.0)
        self._locked = True
        try:
            self._check_holder(op.token)
            yield from work(op)
        except CallError as e:
            op.error = e
        self._locked = False
        self.world.target.in_hand = ""
        kernel.fire(self._unlocked)
        kernel.fire(op.ended)

    def _take(self, op: Operation) -> Steps[None]:
        world, target = self.world, self.world.target
        if (left := self._unfinished()) is not None:
            yield from self._put_back(left)
        target.in_hand = "snapshot"
        world.witness.taken_in_hand("snapshot")
        yield from world.gap(self.process, "checkpoint", f"checkpoint, before snapshot {op.generation}")
        yield 1.0 if world.chance.fault("checkpoint", f"snapshot {op.generation} is slow", 0.02) else 0.2
        self.saved[op.generation] = target.save()
        yield from world.gap(self.process, "checkpoint", f"checkpoint, after snapshot {op.generation}")
        op.state = "done"

    def _bring_back(self, op: Operation) -> Steps[None]:
        world, target = self.world, self.world.target
        # An effect without an end may still be at work, or on its way.
        is_open = world.rules.open_effects_force_a_restore and any(e.state == "intended" for e in self.effects.values())
        if not (op.force or is_open) and self._unfinished() is None:
            yield 0.1
            if target.files == self.saved[op.generation].files:
                op.state = "done"
                return
        op.state = "started"
        yield from self._put_back(op)

    def _put_back(self, op: Operation) -> Steps[None]:
        """The one place where the target goes back."""
        world, target = self.world, self.world.target
        target.in_hand = "restore"
        world.tell("checkpoint", f"restores generation {op.generation}")
        yield from world.gap(self.process, "checkpoint", f"checkpoint, before restore {op.generation}")
        target.cut_power()
        world.witness.taken_in_hand("restore")
        target.files = {"torn": "between two states"}
        yield from world.gap(self.process, "checkpoint", f"checkpoint, in restore {op.generation}")
        yield 200.0 if world.chance.fault("checkpoint", f"restore {op.generation} hangs", 0.006) else 2.5
        target.put_back(self.saved[op.generation])
        target.in_hand = ""
        yield from world.gap(self.process, "checkpoint", f"checkpoint, after restore {op.generation}")
        for effect in self.effects.values():
            if effect.generation >= op.generation:
                effect.state = "reverted"
        for other in self.operations.values():
            if other.state == "started":
                other.state, other.restored = "done", True

    def _unfinished(self) -> Operation | None:
        return next((o for o in self.operations.values() if o.state == "started"), None)

    # --- its own death ---------------------------------------------------------------------------------------------

    def _died(self, process: Process) -> None:
        if process.alive:  # it stands still: what it holds, it goes on holding
            return
        self._locked = False
        self.world.target.in_hand = "restore" if self._unfinished() else ""
        for op in self.operations.values():
            if op.state != "done":
                self.world.kernel.fire(op.ended)
        self.world.kernel.fire(self._unlocked)

    def _recover(self, process: Process) -> None:
        """Completes a restore that was cut off before anybody asks: its run may never come back."""
        if (left := self._unfinished()) is not None and not self._locked:
            self._locked = True
            self.world.kernel.spawn(process, self._complete(left))

    def _complete(self, op: Operation) -> Steps[None]:
        yield from self._put_back(op)
        self._locked = False
        self.world.kernel.fire(self._unlocked)
        self.world.kernel.fire(op.ended)
