"""What commands and their results carry between the supervisor, the workers and the evaluator.

Every model is frozen and refuses unknown fields: a message from another version is an error at the edge, not a surprise
later.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from anneal_contracts.base import Candidate as Candidate
from anneal_contracts.base import CommandBase, ResultBase
from anneal_contracts.base import PastAttempt as PastAttempt
from anneal_contracts.base import Usage as Usage
from anneal_contracts.facts import (
    Action,
    DeferredItemOutcome,
    Frozen,
    Health,
    ItemDetail,
    Outcome,
    ScoreCounts,
    TargetAccess,
)
from anneal_contracts.turns import (
    ChooseItem,
    Chosen,
    Decided,
    Learn,
    Learnt,
    PlanItem,
    Probe,
    Probed,
    Recollection,
    ReviewItem,
)
from anneal_contracts.turns import Propose as Propose
from anneal_contracts.turns import Proposed as Proposed
from anneal_contracts.turns import Reflect as Reflect
from anneal_contracts.turns import Reflected as Reflected

# --- commands: supervisor -> worker or evaluator, over JetStream -----------------------------------------------------


class Discover(CommandBase):
    kind: Literal["discover"] = "discover"
    item_ids: tuple[str, ...] = ()
    mission_services: tuple[str, ...] = ()


class MakePlan(CommandBase):
    """Ladder of static candidates for every item: vendor, curated and recalled, gated by policy."""

    kind: Literal["plan"] = "plan"
    items: tuple[ItemDetail, ...]
    fingerprint: str
    can_snapshot: bool
    use_memory: bool = True
    model_profile: str = ""


class Apply(CommandBase):
    kind: Literal["apply"] = "apply"
    item_id: str
    attempt: int
    action: Action
    effect_key: str
    # Key of the effect that this one takes back; empty: none.
    undoes: str = ""
    # Number of the event that gave the command out. Ledger and target refuse one that is lower than they have seen.
    command_seq: int = 0
    # Seconds after its end in which a new session has to show that the target answers; else it takes the action back
    # by itself. 0: no timer.
    guard_s: float = 0.0


class Evaluate(CommandBase):
    kind: Literal["evaluate"] = "evaluate"
    item_id: str
    attempt: int
    # Key of the effect whose timer on the target waits for word that a new session works; empty: none.
    guarded: str = ""
    health_before: Health
    mission_services: tuple[str, ...] = ()


class _LookAtSeveral(CommandBase):
    item_ids: Annotated[tuple[str, ...], Field(min_length=1)]
    health_before: Health
    mission_services: tuple[str, ...] = ()


class EvaluateGroup(_LookAtSeveral):
    """One look at the machine for scripts applied one after the other: health once, a verdict for each item."""

    kind: Literal["evaluate_group"] = "evaluate_group"


class CheckGate(_LookAtSeveral):
    """The integration gate behind a wave: does everything that was mended so far still hold?"""

    kind: Literal["gate"] = "gate"


class ResolveDeferred(CommandBase):
    """The last word on items that were kept in a mode that the skill defers; mode: the reason they share.

    Given out again after a crash it names those that are left, which may be none.
    """

    kind: Literal["resolve_deferred"] = "resolve_deferred"
    mode: str
    items: tuple[ItemDetail, ...]
    mission_services: tuple[str, ...] = ()


class LookAgain(CommandBase):
    """Rules that did not apply before: those that apply by now and fail are work, and are described in full."""

    kind: Literal["look_again"] = "look_again"
    item_ids: Annotated[tuple[str, ...], Field(min_length=1)]


class Verify(CommandBase):
    """The final word: a full re-scan. Rules of passed_before and inapplicable_before are described if they fail now."""

    kind: Literal["verify"] = "verify"
    passed_before: tuple[str, ...] = ()
    inapplicable_before: tuple[str, ...] = ()
    mission_services: tuple[str, ...] = ()


class CheckHealth(CommandBase):
    """Health alone: after a boot the state to compare with is a new one."""

    kind: Literal["check_health"] = "check_health"
    mission_services: tuple[str, ...] = ()


Command = Annotated[
    Discover
    | MakePlan
    | ChooseItem
    | PlanItem
    | ReviewItem
    | Propose
    | Probe
    | Learn
    | Apply
    | Evaluate
    | EvaluateGroup
    | CheckGate
    | ResolveDeferred
    | LookAgain
    | Reflect
    | Verify
    | CheckHealth,
    Field(discriminator="kind"),
]

# --- results: worker or evaluator -> supervisor, by ReportResult -----------------------------------------------------


class Discovered(ResultBase):
    kind: Literal["discovered"] = "discovered"
    items: tuple[ItemDetail, ...]
    score: ScoreCounts
    # Every rule's outcome in the first scan: what the final re-scan is compared with.
    outcomes: dict[str, Outcome]
    fingerprint: str
    health: Health
    # Name -> blob.
    artifacts: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Ladder(Frozen):
    """What an item may try, and what memory gave for it."""

    item_id: str
    candidates: tuple[Candidate, ...] = ()
    recalled: tuple[Recollection, ...] = ()
    # Seconds that an item of this kind took before; 0: memory knows of none.
    usual_s: float = 0.0


class Planned(ResultBase):
    kind: Literal["planned"] = "planned"
    ladders: tuple[Ladder, ...]
    # Item -> items that undid it in earlier runs: it had better come after them.
    after: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    # May a model author scripts in this run?
    model_may: Literal["author", "choose", "none"] = "none"


class Applied(ResultBase):
    """state: applied (it ran; exit_code tells how it ended), interrupted (started, end unknown), unreachable, error."""

    kind: Literal["applied"] = "applied"
    state: Literal["applied", "interrupted", "unreachable", "error"]
    exit_code: int = 0
    timed_out: bool = False
    output: str = ""
    detail: str = ""


class Evaluated(ResultBase):
    kind: Literal["evaluated"] = "evaluated"
    outcome: Outcome
    health: Health
    # What got worse since health_before, in words; empty: healthy.
    worse: tuple[str, ...] = ()
    # The failing checks' expectation and what was found, from the results XML.
    evidence: str = ""
    # A mode that the skill declares and recognised; empty: the core's triage decides.
    skill_mode: str = ""
    detail: str = ""
    parts: dict[str, float] = Field(default_factory=dict)


class GroupEvaluated(ResultBase):
    """Item -> what was found of it; each carries the one health of the group, and took_s its own verdict's time."""

    kind: Literal["group_evaluated"] = "group_evaluated"
    items: dict[str, Evaluated]


class LookedAgain(ResultBase):
    kind: Literal["looked_again"] = "looked_again"
    items: tuple[ItemDetail, ...] = ()


class DeferredResolved(ResultBase):
    """One outcome for each item that was asked for."""

    kind: Literal["deferred_resolved"] = "deferred_resolved"
    outcomes: tuple[DeferredItemOutcome, ...]


class Verified(ResultBase):
    kind: Literal["verified"] = "verified"
    score: ScoreCounts
    outcomes: dict[str, Outcome]
    health: Health
    artifacts: dict[str, str] = Field(default_factory=dict)
    # Details of rules of passed_before, and of inapplicable_before, that fail now.
    regressed: tuple[ItemDetail, ...] = ()
    became_applicable: tuple[ItemDetail, ...] = ()


class HealthChecked(ResultBase):
    kind: Literal["health_checked"] = "health_checked"
    health: Health


class Acquired(ResultBase):
    """The checkpoint service granted the lease."""

    kind: Literal["acquired"] = "acquired"
    fencing_token: int
    access: TargetAccess


class Snapshotted(ResultBase):
    kind: Literal["snapshotted"] = "snapshotted"
    generation: int


class Restored(ResultBase):
    """restored is False where nothing had changed and the machine went on running."""

    kind: Literal["restored"] = "restored"
    restored: bool
    changed_paths: tuple[str, ...] = ()


class Recorded(ResultBase):
    kind: Literal["recorded"] = "recorded"
    tips: int = 0
    bans: int = 0


class Released(ResultBase):
    kind: Literal["released"] = "released"


class Failed(ResultBase):
    """The command could not be carried out. retryable comes from the error's type."""

    kind: Literal["failed"] = "failed"
    reason: str
    message: str
    retryable: bool = False
    field: str = ""


Result = Annotated[
    Discovered
    | Planned
    | Chosen
    | Decided
    | Proposed
    | Probed
    | Learnt
    | Applied
    | Evaluated
    | GroupEvaluated
    | DeferredResolved
    | LookedAgain
    | Reflected
    | Verified
    | HealthChecked
    | Acquired
    | Snapshotted
    | Restored
    | Recorded
    | Released
    | Failed,
    Field(discriminator="kind"),
]

# --- JetStream subjects ----------------------------------------------------------------------------------------------

# One stream of work; one durable pull consumer a class of work.
WORK_STREAM = "ANNEAL_WORK"
EVENT_STREAM = "ANNEAL_EVENTS"


class WorkClass(StrEnum):
    """Work that shares a queue, and the name of its durable consumer. No class ever waits for another."""

    EVALUATION = "evaluation"  # looking at a target: scans, verdicts, health, probes
    MODEL = "model"  # plans and model turns: slow, and bounded by the model's server
    ACTION = "action"  # changes of a target
    POST = "post"  # what nobody's next step waits for: words for people, reports, notifications, indexing

    @property
    def subjects(self) -> str:
        """The subjects of all its kinds."""
        return f"anneal.work.{self}.>"


_KINDS: dict[WorkClass, tuple[str, ...]] = {
    WorkClass.EVALUATION: (
        "discover",
        "evaluate",
        "evaluate_group",
        "gate",
        "resolve_deferred",
        "look_again",
        "verify",
        "check_health",
        "probe",
    ),
    WorkClass.MODEL: ("plan", "choose_item", "plan_item", "review_item", "propose", "learn"),
    WorkClass.ACTION: ("apply",),
    WorkClass.POST: ("reflect",),
}
SUBJECT_BY_KIND: dict[str, str] = {kind: f"anneal.work.{c}.{kind}" for c, kinds in _KINDS.items() for kind in kinds}


def command_msg_id(run_id: str, command_id: str) -> str:
    """Message id of a command: one that cannot be read still tells whose it is."""
    return f"{run_id}/{command_id}"


def sent_again(msg_id: str, mark: str) -> str:
    """Message id of a message that a person sends again: another one, or the bus would take it for a repetition."""
    return f"{msg_id}+{mark}"


def command_of(msg_id: str) -> tuple[str, str]:
    """Run and command of a message id, also of one that was sent again; empty where it is no command's."""
    run_id, _, command_id = msg_id.partition("+")[0].partition("/")
    return (run_id, command_id) if command_id else ("", "")


def event_subject(run_id: str) -> str:
    """Subject on which a run's events are published."""
    return f"anneal.events.{run_id}"
