"""The witness sees every commit and all that happens to the target, and says when one does not fit the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from anneal_contracts.facts import Outcome
from anneal_core import chain
from anneal_core.events import Ending, ItemStateName
from anneal_core.evolve import evolve
from anneal_core.state import Attempt, RunState

from tests.simulation.scenario import MODES

if TYPE_CHECKING:
    from tests.simulation.target import Permit
    from tests.simulation.world import World

_FINAL = frozenset({ItemStateName.COMPLETED, ItemStateName.DEFERRED, ItemStateName.ESCALATED, ItemStateName.SKIPPED})
_HOLDS = frozenset({Outcome.PASS, Outcome.NOT_APPLICABLE})
_KEEPING_MODES = frozenset(m.name for m in MODES if m.response in ("keep", "defer"))
# Commands that begin new work on items; none is given out after the time budget.
_NEW_WORK = frozenset({"propose", "reflect"})


# No run of so few items has more events than this, whatever happens to it.
_LONGEST_LOG = 1500
# What of an event a story tells.
_TOLD = ("kind", "item_id", "attempt", "generation", "ending", "mode", "state", "reason", "force", "refused", "why")


class Violation(Exception):
    """An invariant does not hold. rule: which one, always in the same words."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


class Witness:
    """Raises Violation at the moment something is wrong."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.state = RunState()
        # What the target held when each generation was kept, and before the attempt under way.
        self.kept: dict[int, dict[str, str]] = {}
        self.before: dict[str, str] = {}
        self.looked: dict[str, str] = {}
        self.final: dict[tuple[int, str], str] = {}
        self.executions = 0

    # --- the log ---------------------------------------------------------------------------------------------------

    def created(self, event: chain.Event) -> None:
        """The first event, which no replica wrote."""
        self.state = evolve(RunState(), event)

    def resumed(self, state: RunState) -> None:
        """A replica folded the log: it must be the state that was live when the last event was committed."""
        if state != self.state:
            raise Violation("the log folds to the live state", f"at event {state.seq}")

    def refused(self, before: RunState, after: RunState) -> None:
        """An event from outside did not fit."""
        if before is not after:
            raise Violation("a refused event changes nothing", f"at event {after.seq}")

    def committed(self, events: Sequence[chain.Event], states: Sequence[RunState]) -> None:
        """Events were committed; states has the state after each."""
        for event, state in zip(events, states, strict=True):
            before, self.state = self.state, state
            if self.world.lines is not None:
                self.world.tell("log", _words(event))
            check = getattr(self, f"_{event.type}", None)
            if check is not None:
                check(before, event)
            if state.seq > _LONGEST_LOG:
                raise Violation("every wait has an end", f"{state.seq} events, the last one {event.type}")
            if state.steps > state.limits.max_steps:
                raise Violation("the cap of steps is never passed", f"{state.steps} of {state.limits.max_steps}")

    def _command_issued(self, before: RunState, event: chain.Event) -> None:
        kind = event.payload["kind"]
        if kind in _NEW_WORK:
            self._in_time(event, kind)
        if kind == "snapshot" and event.payload["generation"] == 0:
            self.kept[0] = dict(self.world.target.files)

    def _attempt_started(self, before: RunState, event: chain.Event) -> None:
        self._in_time(event, "an attempt")
        if not self.world.target.running:
            self.before = dict(self.world.target.files)
        item_id = event.payload["item_id"]
        item = self.state.items[item_id]
        own = [a for a in item.attempts[item.since :] if a.mode != "group_reverted"]
        if len(own) > self.state.limits.max_attempts:
            raise Violation("the cap of attempts is never passed", f"{len(own)} at {item_id}")
        others = [i for i, item in before.items.items() if item.open_attempt and i not in before.group]
        if others:
            raise Violation("one item at a time", f"{item_id} begins while {others} is open")

    def _in_time(self, event: chain.Event, what: str) -> None:
        late = event.at - self.state.created_at - self.state.paused_s - self.state.limits.time_budget_s
        if late > 0:
            raise Violation("nothing begins after the time budget", f"{what}, {late:.1f} s late")

    def _attempt_ended(self, before: RunState, event: chain.Event) -> None:
        p, target = event.payload, self.world.target
        attempt = self.state.items[p["item_id"]].attempts[p["attempt"] - 1]
        if target.running:
            raise Violation("an attempt ends after its effect", f"the {self.identity(target.running[0].permit)} runs")
        if p["ending"] == Ending.KEPT:
            self._kept(attempt, p)
            return
        expected = self.kept[max(self.kept)] if self.world.scenario.can_snapshot else self.before
        if not self.world.faulty_undo(attempt.candidate) and target.files != expected:
            detail = f"{p['item_id']}/{p['attempt']} left {target.files}, was {expected}"
            raise Violation("a reverted target equals its snapshot", detail)

    def _kept(self, attempt: Attempt, p: dict[str, Any]) -> None:
        what = f"{p['item_id']}/{p['attempt']}"
        seen = attempt.evaluated
        if seen is None or seen.worse or not (seen.outcome in _HOLDS or attempt.mode in _KEEPING_MODES):
            raise Violation("only what holds is kept", f"{what} with {seen}")
        target = self.world.target
        if not self.world.scenario.can_snapshot:
            return
        saved = self.world.checkpoint.saved.get(p["generation"])
        if saved is None or saved.files != target.files or self.looked != target.files:
            raise Violation("what is kept is what was judged", f"{what} as generation {p['generation']}")
        self.kept[p["generation"]] = dict(target.files)

    def _item_closed(self, before: RunState, event: chain.Event) -> None:
        p = event.payload
        key = (self.state.round, p["item_id"])
        if key in self.final:
            raise Violation("one final state for an item", f"{p['item_id']} is {self.final[key]}, then {p['state']}")
        if p["state"] not in _FINAL or not p["reason"]:
            raise Violation("a final state has a reason", f"{p['item_id']} is {p['state']}: {p['reason']!r}")
        self.final[key] = p["state"]

    def _gate_failed(self, before: RunState, event: chain.Event) -> None:
        """An item that was found undone is open again, or a person gets it."""
        for diagnosis in event.payload["diagnoses"]:
            key = (self.state.round, diagnosis["item_id"])
            if diagnosis["action"] == "reopen":
                self.final.pop(key, None)
            elif diagnosis["item_id"]:
                self.final[key] = ItemStateName.ESCALATED

    # --- the target ------------------------------------------------------------------------------------------------

    def identity(self, permit: "Permit") -> str:
        """Which change a permit means, whatever key its doer goes by."""
        item = self.state.items.get(permit.item_id)
        attempt = item.open_attempt if item else None
        again = f" again {attempt.interruptions}" if attempt and attempt.interruptions and not permit.undoes else ""
        kind = "undo of" if permit.undoes else "effect of"
        return f"{kind} {permit.item_id}/{permit.attempt}{again} in round {self.state.round}"

    def effect_starts(self, permit: "Permit") -> None:
        """A script is about to start on the target."""
        target, name = self.world.target, self.identity(permit)
        self.executions += 1
        if target.running or target.in_hand:
            other = target.in_hand or self.identity(target.running[0].permit)
            raise Violation("no two effects at once", f"{name} starts beside {other}")
        if name in target.ran:
            raise Violation("an effect runs once unless it was restored", name)
        self._under_the_lease(permit, name)
        if permit.command_id not in self.world.store.issued:
            raise Violation("what is not committed has not happened", f"{name} is not in the log")
        self._of_an_open_attempt(permit, f"{name} starts")

    def _under_the_lease(self, permit: "Permit", name: str) -> None:
        checkpoint = self.world.checkpoint
        if checkpoint.holder == self.world.run_id:
            return
        # What a failed run left open may still come while nobody else has the target: the ledger calls it unknown.
        if not checkpoint.holder and self.state.failure and checkpoint.effects[permit.key].state == "unknown":
            return
        raise Violation("no effect without the lease", f"{name}, held by {checkpoint.holder or 'nobody'}")

    def effect_ends(self, permit: "Permit") -> None:
        """A script has come to its end on the target."""
        self._of_an_open_attempt(permit, f"{self.identity(permit)} ends")

    def _of_an_open_attempt(self, permit: "Permit", what: str) -> None:
        item = self.state.items.get(permit.item_id)
        attempt = item.open_attempt if item else None
        if attempt is None or attempt.number != permit.attempt:
            raise Violation("an effect belongs to an open attempt", what)

    def timer_fires(self, permit: "Permit") -> None:
        """The target takes a change back by itself: only before anybody relies on it, or when nobody does any more."""
        if not self.state.failure:
            self._of_an_open_attempt(permit, f"the timer of {self.identity(permit)} fires")

    def taken_in_hand(self, what: str) -> None:
        """Checkpoint saves the target or brings it back."""
        running = self.world.target.running
        if running and what == "snapshot":
            raise Violation("no two effects at once", f"{what} while {self.identity(running[0].permit)} runs")

    def looked_at(self) -> None:
        """The evaluator looks."""
        self.looked = dict(self.world.target.files)


def _words(event: chain.Event) -> str:
    p: dict[str, Any] = {k: v for k, v in event.payload.items() if v not in ("", 0, (), {}, False, None)}
    facts = {k: p[k] for k in _TOLD if k in p}
    if "result" in p:
        result = p["result"]
        facts["result"] = result["kind"]
        facts |= {k: result[k] for k in ("state", "outcome", "reason", "restored", "worse", "exit_code") if k in result}
    said = ", ".join(f"{k} {v}" for k, v in facts.items())
    return f"{event.seq} {event.type}{': ' if said else ''}{said}"
