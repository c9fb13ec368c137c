"""The events of a run: payloads, version 1. Their JSON is persisted and hashed; golden files hold the shapes.

A new field needs a default, so that old logs still read; a change of meaning needs a new event type.
"""

from enum import StrEnum
from typing import Any, Literal

from anneal_contracts.facts import DeferredItemOutcome, Frozen, SkillPolicy
from anneal_contracts.work import Result
from pydantic import Field, TypeAdapter

from anneal_core.limits import ItemLimits, RoleLimits


class ItemStateName(StrEnum):
    """Where an item stands."""

    QUEUED = "queued"
    ACTIVE = "active"
    COMPLETED = "completed"
    DEFERRED = "deferred"
    ESCALATED = "escalated"
    SKIPPED = "skipped"
    WAITING = "waiting"  # for a person's word on a destructive action


class Ending(StrEnum):
    """How an attempt left the target."""

    KEPT = "kept"
    REVERTED = "reverted"
    UNCHANGED = "unchanged"  # reverted, but there was nothing to undo
    REFUSED = "refused"  # never ran


class DecidedBy(StrEnum):
    """What decided that an item goes to a person, or is left alone."""

    ATTEMPTS = "attempts"  # all of them were used
    GAPS = "gaps"  # too many evaluator gaps
    NO_FIX = "no_fix"  # no rung is left that may run
    RESPONSE = "response"  # the declared response to the last attempt's mode
    MISSING_INPUT = "missing_input"
    ARCHITECT = "architect"
    ITEM_TIME = "item_time"
    ITEM_STEPS = "item_steps"
    ITEM_TOKENS = "item_tokens"
    RUN = "run"  # a bound of the run, or its cancellation
    DEPENDENCY = "dependency"  # what it depends on came to nothing


class Limits(Frozen):
    """Bounds of a run, all of them hard."""

    time_budget_s: float = 1800.0
    max_attempts: int = 3
    max_steps: int = 5000
    # Evaluator gaps on one item before it is escalated early.
    max_gaps: int = 3
    # Escalated items that a model may put in plain words.
    max_reflections: int = 4
    # Rounds that mend rules which fail by the run's own doing: they passed before it, or did not apply.
    repair_rounds: int = 1
    # Times that a command is given out again after a retryable failure or a missed deadline.
    command_tries: int = 3
    # Recalled scripts that are applied one after the other and judged together; 1: each by itself.
    max_group: int = 1
    # Rounds of mending behind a gate that fails, before what is broken is left to a person.
    gate_rounds: int = 3
    # Seconds that a person has to answer when a destructive action wants an approval.
    approval_ttl_s: float = 3600.0
    item: ItemLimits = ItemLimits()
    roles: RoleLimits = RoleLimits()


class Spec(Frozen):
    """What was asked for, already checked."""

    skill: str
    target: str
    profile: str
    item_ids: tuple[str, ...] = ()
    limit: int = 0
    exclusions: dict[str, str] = Field(default_factory=dict)
    dry_run: bool = False
    tailoring_blob: str = ""
    model_profile: str = ""
    use_memory: bool = True


# The rules by which runs are decided today. A log keeps those that it was begun with: it stays replayable for ever.
ENGINE = 2


class RunCreated(Frozen):
    """engine: 1 for runs from before responses, waves and gates."""

    type: Literal["run_created"] = "run_created"
    engine: int = 1
    spec: Spec
    limits: Limits
    policy: SkillPolicy


class CommandIssued(Frozen):
    """The engine wants something done; the shell sends it until a result comes or the deadline passes."""

    type: Literal["command_issued"] = "command_issued"
    command_id: str
    kind: str
    item_id: str = ""
    attempt: int = 0
    generation: int = 0
    force: bool = False
    # The command is for the open group of this number; 0: for one item, or for the run.
    group: int = 0
    # The mode whose deferred items are to be resolved.
    mode: str = ""
    # The evidence on which the Architect is asked again.
    why: str = ""
    # The items among which it is to choose.
    offered: tuple[str, ...] = ()
    deadline: float
    try_no: int = 1


class CommandFinished(Frozen):
    type: Literal["command_finished"] = "command_finished"
    command_id: str
    result: Result


class CommandExpired(Frozen):
    type: Literal["command_expired"] = "command_expired"
    command_id: str


class RunRefused(Frozen):
    """What was found cannot be worked: the run closes down and ends as failed."""

    type: Literal["run_refused"] = "run_refused"
    reason: str


class GoalAssessed(Frozen):
    """How much of the engine this work needs, by signals that anybody can count. gates: look behind every wave."""

    type: Literal["goal_assessed"] = "goal_assessed"
    level: Literal["simple", "medium", "complex"]
    reasons: tuple[str, ...]
    gates: bool = False


class ItemsQueued(Frozen):
    """The items of this round in their order; skipped: id -> reason; waves: the same items, by what they depend on."""

    type: Literal["items_queued"] = "items_queued"
    order: tuple[str, ...]
    skipped: dict[str, str] = Field(default_factory=dict)
    waves: tuple[tuple[str, ...], ...] = ()


class GateDiagnosis(Frozen):
    """Why a gate failed at an item, and what follows. item_id is empty where the machine itself is worse."""

    item_id: str
    cause: str
    # Items whose changes came after it and may have undone it.
    suspects: tuple[str, ...] = ()
    confidence: float
    action: Literal["reopen", "escalate", "halt"]


class GateFailed(Frozen):
    """The gate behind a wave found something broken: typed diagnoses, and the round of mending that they open."""

    type: Literal["gate_failed"] = "gate_failed"
    wave: int
    diagnoses: tuple[GateDiagnosis, ...]


class WaveClosed(Frozen):
    """Every item of the wave came to its end, and its gate, if it has one, holds."""

    type: Literal["wave_closed"] = "wave_closed"
    wave: int


class DeferredProgress(Frozen):
    """What a skill tells while it resolves deferred items; with an outcome, that item has its last word."""

    type: Literal["deferred_progress"] = "deferred_progress"
    command_id: str
    text: str = ""
    outcome: DeferredItemOutcome | None = None


class AttemptStarted(Frozen):
    type: Literal["attempt_started"] = "attempt_started"
    item_id: str
    attempt: int
    candidate: str
    # Number of the group that the attempt is part of; 0: none.
    group: int = 0


class AttemptEnded(Frozen):
    type: Literal["attempt_ended"] = "attempt_ended"
    item_id: str
    attempt: int
    ending: Ending
    # Empty: it worked.
    mode: str = ""
    detail: str = ""
    generation: int = 0
    # What followed from the mode (anneal_core.triage.Response); empty in logs of engine 1.
    response: str = ""


class ItemClosed(Frozen):
    type: Literal["item_closed"] = "item_closed"
    item_id: str
    state: ItemStateName
    reason: str
    rung: str = ""
    # Of an item that was not completed; empty in logs of engine 1.
    decided_by: DecidedBy | Literal[""] = ""
    # What a person has to supply, where that is known.
    missing_input: str = ""


class ApprovalAsked(Frozen):
    """A destructive action wants a person's word. It is bound to this attempt and this very action."""

    type: Literal["approval_asked"] = "approval_asked"
    item_id: str
    attempt: int
    action_hash: str
    title: str
    expires_at: float


class ApprovalAnswered(Frozen):
    """A person's word; the first one counts."""

    type: Literal["approval_answered"] = "approval_answered"
    item_id: str
    attempt: int
    action_hash: str
    granted: bool
    by: str
    reason: str = ""


class ApprovalExpired(Frozen):
    """Nobody answered in time: the action does not run."""

    type: Literal["approval_expired"] = "approval_expired"
    item_id: str
    action_hash: str


class PauseRequested(Frozen):
    """Nothing new begins after the attempt that is under way, until somebody resumes the run."""

    type: Literal["pause_requested"] = "pause_requested"
    by: str
    reason: str = ""


class ResumeRequested(Frozen):
    type: Literal["resume_requested"] = "resume_requested"
    by: str


class RunForked(Frozen):
    """This run goes on from a moment of another one: the events before this one are that run's, chained anew."""

    type: Literal["run_forked"] = "run_forked"
    parent: str
    # Number and hash of the parent's event after which the ways part.
    seq: int
    hash: str
    # The parent's generation to which the target goes back; -1: nothing was touched.
    generation: int
    by: str
    # What is another than the parent's: bounds by their names in Limits, and the model with what it may do.
    limits: dict[str, int | float] = Field(default_factory=dict)
    model_profile: str = ""
    model_may: Literal["author", "choose", "none"] = "none"


class EventRefused(Frozen):
    """Something from outside did not fit the state and changed nothing: a late result, a word on another command."""

    type: Literal["event_refused"] = "event_refused"
    refused: str
    why: str
    command_id: str = ""


class CancelRequested(Frozen):
    type: Literal["cancel_requested"] = "cancel_requested"
    reason: str


class RunEnded(Frozen):
    type: Literal["run_ended"] = "run_ended"
    state: Literal["finished", "cancelled", "failed"]
    reason: str = ""


Payload = (
    RunCreated
    | CommandIssued
    | CommandFinished
    | CommandExpired
    | RunRefused
    | GoalAssessed
    | ItemsQueued
    | GateFailed
    | WaveClosed
    | DeferredProgress
    | AttemptStarted
    | AttemptEnded
    | ItemClosed
    | ApprovalAsked
    | ApprovalAnswered
    | ApprovalExpired
    | PauseRequested
    | ResumeRequested
    | RunForked
    | EventRefused
    | CancelRequested
    | RunEnded
)

_ADAPTER: TypeAdapter[Payload] = TypeAdapter(Payload)


def parse(payload: dict[str, Any]) -> Payload:
    """The payload of a stored event. Raises pydantic.ValidationError for a shape that no version wrote."""
    return _ADAPTER.validate_python(payload)
