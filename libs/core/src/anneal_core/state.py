"""The state of a run: what the fold of its log gives. Immutable; `evolve` alone makes the next one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from anneal_contracts.facts import (
    Health,
    ItemDetail,
    Outcome,
    ProbeCall,
    ScoreCounts,
    SkillPolicy,
    TargetAccess,
)
from anneal_contracts.turns import Decided, Fact, Learnt, Recollection
from anneal_contracts.work import (
    Applied,
    Candidate,
    Evaluated,
    GroupEvaluated,
    Proposed,
    Reflected,
    Restored,
)

from anneal_core.events import Ending, GateDiagnosis, ItemStateName, Limits, Spec


class Phase(StrEnum):
    """States of the run's machine (the table is in anneal_core.machine)."""

    IDLE = "idle"
    DISCOVERING = "discovering"
    PLANNING = "planning"
    EXECUTING = "executing"
    VALIDATING = "validating"
    RECOVERING = "recovering"
    RESOLVING_DEFERRED = "resolving_deferred"
    VERIFYING = "verifying"
    CLOSING = "closing"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = frozenset({Phase.FINISHED, Phase.CANCELLED, Phase.FAILED})


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A command that was given out and has no result yet."""

    command_id: str
    kind: str
    item_id: str
    attempt: int
    generation: int
    force: bool
    group: int
    mode: str
    why: str
    offered: tuple[str, ...]
    deadline: float
    try_no: int
    issued_at: float
    # Number of the event that gave it out: a later command has a higher one.
    seq: int


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at an item, as far as it got."""

    number: int
    candidate: Candidate
    started_at: float
    group: int = 0
    applied: Applied | None = None
    # Times that the action was found cut off and the target put back to apply it anew.
    interruptions: int = 0
    evaluated: Evaluated | None = None
    restored: Restored | None = None
    # Seconds by part: apply, evaluate, keep, revert, as the supervisor waited for them.
    parts: Mapping[str, float] = field(default_factory=dict)
    # Seconds by part as the doers measured them: the difference is the harness's own cost.
    inner: Mapping[str, float] = field(default_factory=dict)
    ending: Ending | None = None
    mode: str = ""
    response: str = ""
    detail: str = ""
    generation: int = 0
    ended_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Known:
    """A fact about the target that a model asked for, and how many attempts at the item there had been."""

    fact: Fact
    attempts: int
    size: int = 0
    redactions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Afterthought:
    """The Reflector's look at one failed attempt."""

    attempt: int
    said: Learnt


@dataclass(frozen=True, kw_only=True)
class Engagement:
    """The Architect's look at an item: why, what it said, and how far the item's story had come."""

    why: str
    said: Decided
    attempts: int
    proposals: int
    lessons: int


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A question to a person about one action, and what became of it. Times are Unix seconds."""

    action_hash: str
    attempt: int
    title: str
    asked_at: float
    expires_at: float
    # asked, granted, denied, expired; void: of the run that this one was forked from.
    state: str = "asked"
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ItemState:
    """One item and its story."""

    detail: ItemDetail
    state: ItemStateName = ItemStateName.QUEUED
    reason: str = ""
    rung: str = ""
    ladder: tuple[Candidate, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    # Attempts before this one belong to an earlier time of the item: it held, and a gate found it undone.
    since: int = 0
    # Model turns that gave no acceptable script, oldest first.
    proposals: tuple[Proposed, ...] = ()
    # Questions of the model's that have no answer yet, and those that have one.
    asked: tuple[ProbeCall, ...] = ()
    facts: tuple[Known, ...] = ()
    lessons: tuple[Afterthought, ...] = ()
    engagements: tuple[Engagement, ...] = ()
    # What memory gave for it, and how long such an item took before (0: not known).
    recalled: tuple[Recollection, ...] = ()
    usual_s: float = 0.0
    # Why the Architect took it first; empty: the order did.
    chosen_why: str = ""
    # When its first command was given out (0: not yet), and the calls and tokens of its model turns.
    started_at: float = 0.0
    calls: int = 0
    tokens: int = 0
    decided_by: str = ""
    missing_input: str = ""
    reflection: Reflected | None = None
    # Questions to people about this item's actions, oldest first.
    approvals: tuple[Approval, ...] = ()
    # Attempts, the oldest ones, that were made by the run that this one was forked from.
    inherited: int = 0
    final: Outcome | None = None

    @property
    def steps(self) -> int:
        """Counted steps of the item: calls of a model, questions, and what its attempts did."""
        done = sum((a.applied is not None) + a.interruptions + (a.evaluated is not None) for a in self.attempts)
        return self.calls + len(self.facts) + done

    @property
    def open_attempt(self) -> Attempt | None:
        """The attempt under way, if any."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].ending is None else None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a forked run comes from: parent, number and hash of its last event that both share.

    generation: the parent's, to which the target goes back first; -1: nothing was touched.
    """

    parent: str
    seq: int
    hash: str
    generation: int
    by: str
    rewound: bool = False
    # The target as it then is was kept as this run's own first generation.
    based: bool = False


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Everything the engine knows of a run."""

    run_id: str = ""
    seq: int = 0
    head: str = ""
    # The rules by which this run is decided (events.ENGINE).
    engine: int = 1
    phase: Phase = Phase.IDLE
    reason: str = ""
    spec: Spec | None = None
    limits: Limits = field(default_factory=Limits)
    policy: SkillPolicy | None = None
    # Where it comes from, if it is a fork; the time of its creation is then that of the fork.
    origin: Origin | None = None
    created_at: float = 0.0
    ended_at: float = 0.0
    cancel: str = ""
    # Nothing new begins while it is set; and since when, and how long it was before.
    paused: bool = False
    paused_at: float = 0.0
    paused_s: float = 0.0
    # Why the run cannot go on; it then only closes down.
    failure: str = ""
    pending: Mapping[str, Pending] = field(default_factory=dict)
    # Tries used by command kind, item and attempt: a command's failures never count for another.
    tries: Mapping[str, int] = field(default_factory=dict)
    fencing_token: int = 0
    access: TargetAccess | None = None
    generation: int = -1
    health: Health | None = None
    # The machine was booted again and its health not looked at since.
    booted: bool = False
    # The newest generation was booted: what holds now also holds after a restart.
    settled: bool = False
    fingerprint: str = ""
    before: ScoreCounts | None = None
    after: ScoreCounts | None = None
    outcomes_before: Mapping[str, Outcome] = field(default_factory=dict)
    outcomes_after: Mapping[str, Outcome] = field(default_factory=dict)
    health_after: Health | None = None
    found: Mapping[str, ItemDetail] = field(default_factory=dict)
    ladders: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    # What memory gave by item, and the seconds that such an item took before.
    recalled: Mapping[str, tuple[Recollection, ...]] = field(default_factory=dict)
    usual: Mapping[str, float] = field(default_factory=dict)
    items: Mapping[str, ItemState] = field(default_factory=dict)
    # Items that wait for a person's answer.
    waiting: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()
    goal: str = ""
    goal_reasons: tuple[str, ...] = ()
    gates: bool = False
    # Item -> items that undid it in earlier runs.
    after_those: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # The round's items by what they depend on, and the wave that is being worked.
    waves: tuple[tuple[str, ...], ...] = ()
    wave: int = 0
    # What the gate behind this wave found; None: it was not asked since the last mending.
    gate: GroupEvaluated | None = None
    gate_round: int = 0
    diagnoses: tuple[GateDiagnosis, ...] = ()
    # Why no further attempt may begin, though the run goes on to its last scan.
    halt: str = ""
    # Modes whose deferred items have had their last word.
    resolved: frozenset[str] = frozenset()
    round: int = 0
    # The ladders of this round are known; queued: and its items are in the queue.
    planned: bool = False
    queued: bool = False
    # What did not apply before was looked at again, and what of it applies by now and fails.
    looked_again: bool = False
    newly: tuple[str, ...] = ()
    # Rounds that were begun after a full re-scan.
    repairs: int = 0
    verified: bool = False
    recorded: bool = False
    released: bool = False
    active: str = ""
    # Items of the open group in the order of their attempts, and how many groups there were.
    group: tuple[str, ...] = ()
    groups: int = 0
    model_may: str = "none"
    artifacts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    steps: int = 0
    tokens: int = 0
    reflections: int = 0
    # Times that the Architect was asked to pick, what it was offered last, and what it picked of that.
    choices: int = 0
    offered: tuple[str, ...] = ()
    chosen: str = ""

    @property
    def ended(self) -> bool:
        """True when nothing will happen any more."""
        return self.phase in ENDED

    @property
    def shown(self) -> str:
        """The phase as people see it: paused where nothing is under way and nothing new begins."""
        under_way = bool(self.pending) or self.ended
        return "paused" if self.paused and not self.cancel and not under_way else self.phase.value

    def regressions(self) -> tuple[str, ...]:
        """Rules that passed in the first scan and fail or err in the last, in order of their ids."""
        bad = {Outcome.FAIL, Outcome.ERROR}
        return tuple(
            sorted(
                i for i, o in self.outcomes_before.items() if o is Outcome.PASS and self.outcomes_after.get(i) in bad
            )
        )

    def became_applicable(self) -> dict[str, Outcome]:
        """Rules that did not apply in the first scan, with the last one's word where they do, in order of their ids."""
        judged = {Outcome.PASS, Outcome.FAIL, Outcome.ERROR}
        return {
            i: self.outcomes_after[i]
            for i, o in sorted(self.outcomes_before.items())
            if o is Outcome.NOT_APPLICABLE and self.outcomes_after.get(i) in judged
        }

    def fixed(self) -> int:
        """Number of rules that failed in the first scan and pass in the last."""
        bad = {Outcome.FAIL, Outcome.ERROR}
        return sum(
            1 for i, o in self.outcomes_before.items() if o in bad and self.outcomes_after.get(i) is Outcome.PASS
        )
