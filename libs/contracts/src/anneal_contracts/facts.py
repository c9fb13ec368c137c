"""What is told of work, whoever tells it: actions, items, health, scores, targets, and the closed sets they draw on.

Times are seconds as floats; texts from targets are already cut to a bound by whoever captured them.
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


class ProbeState(StrEnum):
    """What came of a question about a target."""

    ANSWERED = "answered"
    MISSING = "missing"  # there is no such thing on the target
    DENIED = "denied"  # it is never shown, or not by this skill
    FAILED = "failed"  # it could not be looked at


class ProbeCall(Frozen):
    """One read-only question about a target: a tool that the skill declares, and its arguments."""

    tool: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: dict[str, str | int | bool] = Field(default_factory=dict)


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


class DeferredItemOutcome(Frozen):
    """What became of a deferred item. The reason is the skill's own and stands as it is."""

    item_id: str
    state: Literal["completed", "escalated"]
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class OrderRule(Frozen):
    """Items that wait until enough of others are settled: a predicate over the run's state, from the manifest."""

    # Globs of item ids.
    items: Annotated[tuple[str, ...], Field(min_length=1)]
    # Globs of item ids, or `category:` with a glob of categories.
    behind: Annotated[tuple[str, ...], Field(min_length=1)]
    # Share of those others that must have come to an end.
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    why: Annotated[str, Field(min_length=1)]


class SkillPolicy(Frozen):
    """What the engine needs of a skill's manifest."""

    name: str
    version: str
    modes: tuple[DeclaredMode, ...] = ()
    volatile_paths: tuple[str, ...] = ()
    mission_services: tuple[str, ...] = ()
    default_profile: str = ""
    order_rules: tuple[OrderRule, ...] = ()
    # Seconds that discovery, one evaluation and the final verification may take at the most.
    discover_timeout_s: float = 300.0
    evaluate_timeout_s: float = 60.0
    verify_timeout_s: float = 300.0
