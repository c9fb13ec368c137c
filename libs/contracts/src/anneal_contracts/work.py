"""What commands and their results carry between the supervisor, the workers and the evaluator.

Every model is frozen and refuses unknown fields: a message from another version is an error at the edge, not a surprise
later. Times are seconds as floats; texts from targets are already cut to a bound by whoever captured them.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anneal_contracts.canonical import digest


class Frozen(BaseModel):
    """Base of all contracts: immutable, closed, and keyword-only by Pydantic's nature."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Mutability(StrEnum):
    """What an action may do to its target."""

    READ_ONLY = "read_only"  # leaves no trace
    REVERSIBLE = "reversible"  # a snapshot or its own undo brings the state back
    DESTRUCTIVE = "destructive"  # no way back: needs approval
    FORBIDDEN = "forbidden"  # never runs


class FixSource(StrEnum):
    """The rungs of the ladder, lowest first."""

    VENDOR = "vendor"
    CURATED = "curated"
    RECALLED = "recalled"
    MODEL = "model"


class Outcome(StrEnum):
    """What the evaluator's tool said of an item."""

    PASS = "pass"  # noqa: S105 - a verdict, not a secret
    FAIL = "fail"
    ERROR = "error"
    NOT_APPLICABLE = "notapplicable"
    OTHER = "other"  # notchecked, notselected, informational, unknown


class CoreMode(StrEnum):
    """Failure modes that every skill shares; a skill may add its own names in the manifest."""

    HEALTH_FAILURE = "health_failure"  # the machine got worse: revert at once
    EVALUATOR_GAP = "evaluator_gap"  # applied, healthy, something changed, evaluator still says fail
    FALSE_NEGATIVE = "false_negative"  # passes although the action reported noise
    CLEAN_FAILURE = "clean_failure"  # the action reported failure and the item still fails
    APPLY_ERROR = "apply_error"  # the action could not be carried out at all
    POLICY_DENIED = "policy_denied"
    CONTRACT_VIOLATION = "contract_violation"
    MISSING_INPUT = "missing_input"
    TARGET_UNREACHABLE = "target_unreachable"
    BUDGET_EXHAUSTED = "budget_exhausted"
    GROUP_REVERTED = "group_reverted"  # taken back with its group: no word on the script itself


class Action(Frozen):
    """One action on a target: exactly the content that runs, and what is known of it before it runs."""

    source: FixSource
    kind: Literal["bash", "ansible", "undo"]
    title: str
    content: str
    mutability: Mutability = Mutability.REVERSIBLE
    # May cut our own reach (sshd, sudo, network, PAM): guarded, and late in the order.
    risks_reach: bool = False
    needs_reboot: bool = False
    # A script that takes the action back, for targets without snapshots.
    undo: str | None = None
    timeout_s: float = 120.0
    # Where a recalled action came from first, and the tip that advised it.
    origin: str = ""
    tip_id: str = ""
    # The gate's word on it; filled by the worker before the supervisor sees the action.
    allowed: bool = True
    policy: str = ""

    @property
    def hash(self) -> str:
        """Identity of what runs: the same script under another title is the same action."""
        return digest(self.kind, self.content)


class ItemDetail(Frozen):
    """One unit of work as the skill describes it."""

    id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$")]
    title: str
    category: str = "other"
    severity: Literal["high", "medium", "low", "unknown"] = "unknown"
    # Lower runs earlier; the skill computes it from severity, disruption and its ordering constraints.
    priority: int = 0
    description: str = ""
    rationale: str = ""
    fix_text: str = ""
    check_text: str = ""
    references: dict[str, list[str]] = Field(default_factory=dict)
    resources: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    # A reason why no fix can work on this target (for example: it wants a file system of its own).
    missing_input: str = ""


class ScoreCounts(Frozen):
    """Counts of one full scan."""

    passed: int = Field(default=0, alias="pass")
    fail: int = 0
    error: int = 0
    notapplicable: int = 0
    other: int = 0

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Unit(Frozen):
    """A service unit that is in a bad state."""

    name: str
    detail: str = ""


class Health(Frozen):
    """The state of a target beside its items; compared with the state before, never with an ideal."""

    reachable: bool
    privileged: bool = False
    failed_units: tuple[str, ...] = ()
    # Declared mission services that do not answer.
    dead_services: tuple[str, ...] = ()
    detail: str = ""
    took_s: float = 0.0


class TargetAccess(Frozen):
    """How a target is reached, as the checkpoint service gives it with a lease."""

    name: str
    driver: Literal["nspawn", "ssh"]
    host: str
    port: int
    user: str
    key_path: str
    host_key: str
    can_snapshot: bool
    mission_services: tuple[str, ...] = ()


class DeclaredMode(Frozen):
    """A failure mode of a skill's own and the declared response to it."""

    name: str
    response: Literal["revert", "keep", "defer", "ban", "retry", "escalate"]


class SkillPolicy(Frozen):
    """What the engine needs of a skill's manifest."""

    name: str
    version: str
    modes: tuple[DeclaredMode, ...] = ()
    volatile_paths: tuple[str, ...] = ()
    mission_services: tuple[str, ...] = ()
    default_profile: str = ""
    # Seconds that discovery, one evaluation and the final verification may take at the most.
    discover_timeout_s: float = 300.0
    evaluate_timeout_s: float = 60.0
    verify_timeout_s: float = 300.0


# --- commands: supervisor -> worker or evaluator, over JetStream -----------------------------------------------------


class CommandBase(Frozen):
    """What every command carries. command_id is its idempotency key."""

    command_id: str
    run_id: str
    skill: str
    profile: str = ""
    # Blob of the tailoring file; empty: none.
    tailoring_blob: str = ""
    target: str
    fencing_token: int = 0
    # Unix time after which the result is no longer waited for.
    deadline: float


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


class PastAttempt(Frozen):
    """What an earlier attempt at the same item came to, as facts for a prompt."""

    number: int
    source: FixSource
    title: str
    failure_mode: str
    evidence: str
    output: str
    content_blob: str = ""


class Propose(CommandBase):
    """A model turn: the Worker role writes one script under its contract."""

    kind: Literal["propose"] = "propose"
    item: ItemDetail
    past: tuple[PastAttempt, ...] = ()
    attempt: int
    can_snapshot: bool
    model_profile: str = ""
    fingerprint: str = ""


class Apply(CommandBase):
    kind: Literal["apply"] = "apply"
    item_id: str
    attempt: int
    action: Action
    effect_key: str


class Evaluate(CommandBase):
    kind: Literal["evaluate"] = "evaluate"
    item_id: str
    attempt: int
    health_before: Health
    mission_services: tuple[str, ...] = ()


class EvaluateGroup(CommandBase):
    """One look at the machine for scripts applied one after the other: health once, a verdict for each item."""

    kind: Literal["evaluate_group"] = "evaluate_group"
    item_ids: Annotated[tuple[str, ...], Field(min_length=1)]
    health_before: Health
    mission_services: tuple[str, ...] = ()


class Reflect(CommandBase):
    """A model turn on what failed: plain words for people, a lesson for memory. Never evidence."""

    kind: Literal["reflect"] = "reflect"
    item: ItemDetail
    past: tuple[PastAttempt, ...]
    reason: str
    model_profile: str = ""


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
    Discover | MakePlan | Propose | Apply | Evaluate | EvaluateGroup | Reflect | Verify | CheckHealth,
    Field(discriminator="kind"),
]

# --- results: worker or evaluator -> supervisor, by ReportResult -----------------------------------------------------


class ResultBase(Frozen):
    command_id: str
    took_s: float = 0.0


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


class Candidate(Frozen):
    """A rung of an item's ladder. The content is in the blob, so that events stay small."""

    hash: str
    blob: str
    # Blob of the script that takes it back; empty: none.
    undo_blob: str = ""
    source: FixSource
    kind: Literal["bash", "ansible", "undo"]
    title: str
    mutability: Mutability
    risks_reach: bool = False
    needs_reboot: bool = False
    timeout_s: float = 120.0
    origin: str = ""
    tip_id: str = ""
    allowed: bool = True
    policy: str = ""
    # Memory says that it failed cleanly on this kind of machine; the reason in words.
    banned: str = ""


class Ladder(Frozen):
    item_id: str
    candidates: tuple[Candidate, ...] = ()


class Planned(ResultBase):
    kind: Literal["planned"] = "planned"
    ladders: tuple[Ladder, ...]
    # May a model author scripts in this run?
    model_may: Literal["author", "choose", "none"] = "none"


class Usage(Frozen):
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Proposed(ResultBase):
    """candidate is None where the model gave no acceptable answer; mode and detail then say why."""

    kind: Literal["proposed"] = "proposed"
    candidate: Candidate | None = None
    mode: str = ""
    detail: str = ""
    usage: Usage = Usage()
    # Blobs of prompt and response for the provenance of the action.
    transcript_blobs: tuple[str, ...] = ()
    model: str = ""


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


class Reflected(ResultBase):
    kind: Literal["reflected"] = "reflected"
    words: str = ""
    model: str = ""
    usage: Usage = Usage()
    detail: str = ""
    transcript_blobs: tuple[str, ...] = ()


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
    | Proposed
    | Applied
    | Evaluated
    | GroupEvaluated
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
SUBJECT_BY_KIND: dict[str, str] = {
    "discover": "anneal.work.evaluation.discover",
    "evaluate": "anneal.work.evaluation.evaluate",
    "evaluate_group": "anneal.work.evaluation.evaluate_group",
    "verify": "anneal.work.evaluation.verify",
    "check_health": "anneal.work.evaluation.check_health",
    "plan": "anneal.work.model.plan",
    "propose": "anneal.work.model.propose",
    "apply": "anneal.work.action.apply",
    "reflect": "anneal.work.post.reflect",
}


def event_subject(run_id: str) -> str:
    """Subject on which a run's events are published."""
    return f"anneal.events.{run_id}"
