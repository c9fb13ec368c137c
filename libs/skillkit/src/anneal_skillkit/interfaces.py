"""The five interfaces of a skill. A skill's runtime.py builds one SkillRuntime; the services call nothing else of it.

All methods are coroutines, may raise AnnealError (retryable or not by its type), and must not keep state between calls
other than caches that can be rebuilt: another process may take the next call.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from anneal_contracts.facts import (
    Action,
    DeclaredMode,
    DeferredItemOutcome,
    Health,
    ItemDetail,
    Outcome,
    ScoreCounts,
    TargetAccess,
)

# Tells what goes on while deferred items are resolved; with an outcome, that item has its last word.
Emit = Callable[[str, DeferredItemOutcome | None], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """How a program on the target ended. Output is cut to the limit given, with a mark where it was cut."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False


class TargetSession(Protocol):
    """One authenticated connection to a target. Programs are argument lists; nothing goes into a shell line."""

    access: TargetAccess

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = True,
        timeout_s: float = 30.0,
        limit: int = 1 << 20,
    ) -> ExecResult:
        """Runs a program. Raises TargetUnreachable when the connection is lost, never for a non-zero exit."""
        ...

    async def read(self, path: str, *, limit: int = 1 << 24) -> bytes:
        """Reads a file as root. Raises NotFound."""
        ...

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Writes a file as root, whole or not at all."""
        ...

    async def fresh(self) -> "TargetSession":
        """A new, separately authenticated session: the canary. Raises TargetUnreachable."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What takes a change back by itself, after_s after its end, unless a new session shows that the target answers.

    required: without it the change must not begin.
    """

    undo: bytes
    after_s: int
    required: bool


@dataclass(frozen=True, kw_only=True)
class Permit:
    """The ledger's leave to carry one change out under a key, in the terms in which the target checks it.

    Whoever comes with a lower token, or with an earlier command of the log under the same one, is refused; so is
    everybody after another boot than `boot`, and after `until` (hundredths of a second since that boot).
    """

    key: str
    ledger: str
    token: int
    command_seq: int
    boot: str
    until: int
    # Key of the effect that this one takes back; empty: none.
    undoes: str = ""
    guard: Guard | None = None


class Sessions(Protocol):
    """Where a process gets its sessions: one long-lived connection a target."""

    async def get(self, access: TargetAccess) -> TargetSession:
        """The live session of a target, opened when needed. Raises TargetUnreachable, HostKeyChanged and the like."""
        ...

    async def drop(self, access: TargetAccess) -> None:
        """Forgets a session that no longer answers."""
        ...

    async def close(self) -> None:
        """Closes every session."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every call of a skill gets. cache is a folder of the service's own that may vanish between calls."""

    run_id: str
    profile: str
    tailoring: bytes
    session: TargetSession
    cache: Path
    mission_services: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What a first full look at the target found. artifacts: name -> content (kept as blobs, shown in reports)."""

    items: tuple[ItemDetail, ...]
    score: ScoreCounts
    outcomes: Mapping[str, Outcome]
    fingerprint: str
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """An evaluator's word on one item. evidence is for people and prompts; the outcome alone decides."""

    outcome: Outcome
    evidence: str = ""
    # A mode of the manifest that the skill recognised; empty: the engine's triage.
    mode: str = ""


@dataclass(frozen=True, kw_only=True)
class FullScan:
    """A full look at the target after the run: the only source of the score."""

    score: ScoreCounts
    outcomes: Mapping[str, Outcome]
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


class WorkQueue(Protocol):
    """Finds the work."""

    async def check(self, *, profile: str, item_ids: Sequence[str], tailoring: bytes) -> Sequence[tuple[str, str]]:
        """Checks a run's specification without a target: pairs of field name and what is wrong with it."""
        ...

    async def discover(self, ctx: Context, item_ids: Sequence[str]) -> Discovery: ...

    async def describe(self, ctx: Context, item_ids: Sequence[str]) -> Sequence[ItemDetail]:
        """These items in full, whatever their state: rules that passed before and fail now become work."""
        ...


class Executor(Protocol):
    """Knows the fixes of the skill's own content and how to carry one out."""

    async def ladder(self, ctx: Context, item: ItemDetail) -> Sequence[Action]:
        """Static candidates in ladder order (vendor, curated). Recalled and model rungs are the worker's."""
        ...

    async def apply(self, ctx: Context, action: Action, permit: Permit) -> ExecResult:
        """Carries the action out by the permit, under its markers (see anneal_skillkit.effects)."""
        ...


class Evaluator(Protocol):
    """Says whether an item holds, from real tools and structured results only."""

    async def evaluate(self, ctx: Context, item_id: str) -> Judgement: ...

    async def health(self, ctx: Context, canary: TargetSession) -> Health:
        """Health as the skill sees it; canary is a session opened just now."""
        ...

    async def verify(self, ctx: Context) -> FullScan: ...


class Checkpoint(Protocol):
    """What a snapshot must know of the skill's kind of target."""

    def volatile_paths(self) -> Sequence[str]:
        """Globs of paths that change by themselves (journal, wtmp): no reason to restore, no part of a comparison."""
        ...


class SkillRuntime(Protocol):
    """The skill, assembled."""

    work_queue: WorkQueue
    executor: Executor
    evaluator: Evaluator
    checkpoint: Checkpoint

    def modes(self) -> Sequence[DeclaredMode]: ...

    async def resolve_deferred(
        self, ctx: Context, reason: str, items: Sequence[ItemDetail], emit: Emit
    ) -> Sequence[DeferredItemOutcome]:
        """The last word on items that were kept in a mode with the response `defer`; reason: that mode.

        Asked after the queue has drained, on a target that was restarted where its driver can. emit tells what goes on;
        an item whose outcome was emitted is settled, and not given again after a crash. One outcome for each item.
        """
        ...

    async def baseline(self, ctx: Context) -> str:
        """Lets the tool that people use without anneal loose on the target, for comparison; returns how, in words.

        Raises NotFound where the skill has no such peer.
        """
        ...

    async def export(self, fmt: str, run: Mapping[str, object], artifacts: Mapping[str, bytes]) -> tuple[bytes, str]:
        """A report in a format of the skill's own: content and media type. run is the run document (JSON data)."""
        ...
