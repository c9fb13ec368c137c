"""A run from its seed to its end: everything put together, driven, and looked at afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from anneal_contracts.base import Candidate
from anneal_core import chain
from anneal_core import events as ev

from tests.simulation import invariants, people
from tests.simulation.bus import Bus
from tests.simulation.chance import Chance
from tests.simulation.checkpoint import Checkpoint
from tests.simulation.doers import Doers
from tests.simulation.kernel import Died, Kernel, Process, Steps, TooBusy
from tests.simulation.rules import Rules
from tests.simulation.scenario import Scenario
from tests.simulation.shell import Shell
from tests.simulation.store import Store
from tests.simulation.target import Target
from tests.simulation.witness import Violation, Witness

START = 1_700_000_000.0
# A supervisor passes many more of these places than any other.
_GAPS = {"supervisor": (("dies", 0.0015), ("stands still", 0.0015))}
_GAP = (("dies", 0.006), ("stands still", 0.006))


@dataclass(frozen=True, kw_only=True)
class Story:
    """What came of a run. rule: the invariant that does not hold; empty: all do."""

    seed: int
    rule: str = ""
    detail: str = ""
    faults: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    head: str = ""
    events: int = 0
    virtual_s: float = 0.0
    visited: tuple[str, ...] = ()
    lines: tuple[str, ...] = field(default=(), repr=False)


class World:
    """Everything of one run. Nothing in it knows a real clock, a thread, or another run."""

    def __init__(
        self,
        seed: int,
        *,
        rules: Rules | None = None,
        only: frozenset[str] | None = None,
        without: frozenset[str] = frozenset(),
        told: bool = False,
    ) -> None:
        self.seed = seed
        self.rules = rules or Rules()
        self.run_id = f"run-{seed}"
        self.lines: list[str] | None = [] if told else None
        self.chance = Chance(seed, only)
        self.kernel = Kernel(START)
        self.scenario = Scenario(self.chance, without)
        self.witness = Witness(self)
        self.target = Target(self)
        self.checkpoint = Checkpoint(self)
        self.store = Store()
        self.bus = Bus(self)
        self.doers = Doers(self)
        self.shell = Shell(self)

    def tell(self, who: str, what: str) -> None:
        """A line of the story, where one is told."""
        if self.lines is not None:
            self.lines.append(f"{self.kernel.now - START:9.3f}  {who:<13} {what}")

    def gap(self, process: Process, family: str, where: str) -> Steps[None]:
        """A place between two facts where a process may die or stand still."""
        fault = self.chance.one_of(family, where, _GAPS.get(family, _GAP))
        if not fault:
            return
        if fault.endswith("dies"):
            self.tell(process.name, f"dies: {where}")
            raise Died
        seconds = self.chance.between(f"{where}, so long", 2.0, 150.0)
        self.tell(process.name, f"stands still for {seconds:.0f} s: {where}")
        self.kernel.stop(process, seconds)
        yield 0.0

    def faulty_undo(self, candidate: Candidate) -> bool:
        """Whether the script that takes this candidate back is one that lies or fails."""
        content = self.scenario.blobs.get(candidate.undo_blob, "")
        return bool(content and self.scenario.scripts[content].defect)

    # --- the run ---------------------------------------------------------------------------------------------------

    def play(self) -> Story:
        """From the first event to when nothing is planned any more."""
        self._create()
        self.shell.start()
        self._plan_troubles()
        try:
            self._run()
        except Violation as e:
            self.tell("witness", f"{e.rule}: {e.detail}")
            return self._story(e.rule, e.detail)
        return self._story("", "")

    def _run(self) -> None:
        try:
            self.kernel.run()
        except TooBusy as e:
            raise Violation("every wait has an end", str(e)) from e
        invariants.check(self)

    def _create(self) -> None:
        scenario = self.scenario
        created = ev.RunCreated(
            engine=ev.ENGINE, spec=scenario.spec(), limits=scenario.limits(), policy=scenario.policy()
        )
        event = chain.link(
            run_id=self.run_id,
            seq=1,
            at=START,
            type=created.type,
            actor="person",
            payload=created.model_dump(mode="json"),
            prev_hash=chain.GENESIS,
        )
        self.store.append([event], [], 0, ended=False)
        self.witness.created(event)

    def _plan_troubles(self) -> None:
        """What does not wait for anybody's doing: people, other runs, the target's own life."""
        people.plan(self)
        c, at = self.chance, self.kernel.now
        for n, span in enumerate((20.0, 60.0, 150.0, 400.0)):
            when = at + c.between(f"trouble {n} comes", 0.0, span)
            fault = c.one_of("target", f"trouble {n} of the target", (("reboots", 0.05), ("is cut off", 0.05)))
            if fault.endswith("reboots"):
                self.kernel.call_at(when, self._reboot)
            elif fault:
                seconds = c.pick(f"trouble {n} lasts", (1.0, 8.0, 40.0, 300.0))
                self.kernel.call_at(when, lambda seconds=seconds: self._cut(seconds))  # type: ignore[misc]

        for n, span in enumerate((30.0, 300.0)):
            if c.fault("supervisor", f"all supervisors stand still, {n + 1}", 0.02):
                when = at + c.between(f"all supervisors stand still, {n + 1}: when", 1.0, span)
                self.kernel.call_at(when, self._pause_supervisors)

    def _pause_supervisors(self) -> None:
        self.tell("outside", "all supervisors stand still")
        for replica in self.shell.replicas:
            self.kernel.stop(replica.process, 200.0)

    def _reboot(self) -> None:
        self.tell("target", "reboots by itself")
        self.target.reboot()

    def _cut(self, seconds: float) -> None:
        self.tell("target", f"is out of reach for {seconds:g} s")
        self.target.down_until = max(self.target.down_until, self.kernel.now + seconds)

    def _story(self, rule: str, detail: str) -> Story:
        state = self.witness.state
        ended = self.store.log[-1].at - START
        return Story(
            seed=self.seed,
            rule=rule,
            detail=detail,
            faults=tuple(self.chance.fired),
            items=tuple(i.id for i in self.scenario.items),
            head=state.head,
            events=len(self.store.log),
            virtual_s=ended,
            visited=tuple(invariants.visited(self)),
            lines=tuple(self.lines or ()),
        )


def play(
    seed: int,
    *,
    rules: Rules | None = None,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    told: bool = False,
) -> Story:
    """One run."""
    faults = None if only is None else frozenset(only)
    return World(seed, rules=rules, only=faults, without=frozenset(without), told=told).play()
