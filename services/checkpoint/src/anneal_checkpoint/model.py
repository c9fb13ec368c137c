"""Records of the checkpoint service. Immutable; names as in the wire contract; times are aware UTC datetimes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DriverKind(StrEnum):
    """How a target's states are saved and brought back."""

    NSPAWN = "nspawn"  # a machine of the lab: whole-root snapshots
    SSH = "ssh"  # a host of the user's: no snapshots


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target as it was registered. For nspawn only name, machine and mission_services are set."""

    name: str
    driver: DriverKind
    host: str = ""
    port: int = 0
    user: str = ""
    key_path: str = ""
    host_key: str = ""
    machine: str = ""
    mission_services: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a session on a target is opened at this moment. All empty where a machine is known but not running."""

    host: str = ""
    port: int = 0
    user: str = ""
    key_path: str = ""
    host_key: str = ""


@dataclass(frozen=True, kw_only=True)
class TargetView:
    """A target with what only the service knows: how to reach it, what its driver can do, and who holds it."""

    target: Target
    reach: Reach
    can_snapshot: bool
    leased_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The lease row of a target. run_id: empty where nobody holds it; live: held and not expired (database clock).

    newest_seq: of the newest command of the holder's log that was carried out. left_s: what is left of the lease.
    """

    target: str
    run_id: str
    token: int
    expires_at: datetime | None
    live: bool
    newest_seq: int = 0
    left_s: float = 0.0


class OperationKind(StrEnum):
    """What an operation does to a target's saved states."""

    SNAPSHOT = "snapshot"
    RESTORE = "restore"


class OperationState(StrEnum):
    """How far an operation has come."""

    INTENDED = "intended"  # recorded; nothing outside the database has happened
    STARTED = "started"  # a restore has begun to change the target: it must be carried to its end
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A snapshot or restore under its idempotency key. took_s in seconds."""

    key: str
    kind: OperationKind
    target: str
    run_id: str
    generation: int
    request_hash: str
    state: OperationState = OperationState.INTENDED
    restored: bool = False
    changed_paths: tuple[str, ...] = ()
    took_s: float = 0.0


class SnapshotState(StrEnum):
    """Life of a saved state."""

    TAKING = "taking"  # may be half there: never restored
    KEPT = "kept"
    DROPPING = "dropping"  # no longer wanted; its files may still be there
    DROPPED = "dropped"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A saved state of a target. name is unique on its machine; driver and machine as they were when it was taken."""

    name: str
    target: str
    driver: DriverKind
    machine: str
    run_id: str
    generation: int
    state: SnapshotState
    taken_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the rules of an operation look at, read in one go under the lease's lock.

    operation: recorded under the order's key. unfinished: the newest restore that began and has no end. saved: states
    of the run that are not dropped, and the order's own. marked: states of any target that wait to be dropped.
    """

    target: Target | None
    operation: Operation | None
    unfinished: Operation | None
    saved: tuple[Snapshot, ...] = ()
    marked: tuple[Snapshot, ...] = ()

    @property
    def done(self) -> Operation | None:
        """The operation, where it was carried out before."""
        known = self.operation
        return known if known is not None and known.state is OperationState.DONE else None

    def snapshot(self, generation: int) -> Snapshot | None:
        """The run's saved state of a generation."""
        return next((s for s in self.saved if s.generation == generation), None)


class EffectState(StrEnum):
    """Life of a change to a target."""

    INTENDED = "intended"  # it may or may not have happened: the markers on the target tell
    STARTED = "started"  # the target was seen at work on it
    APPLIED = "applied"  # it ran to its end; the exit code says how it ended
    REVERTED = "reverted"  # taken back, or it never happened and never will
    UNKNOWN = "unknown"  # nobody could find out how far it came


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One change to a target, recorded before it happens."""

    key: str
    target: str
    run_id: str
    item_id: str
    attempt: int
    action_hash: str
    fencing_token: int
    # Number of the event of the run's log that asked for it last.
    command_seq: int = 0
    # Key of the effect that this one takes back; empty: none.
    undoes: str = ""
    state: EffectState = EffectState.INTENDED
    exit_code: int = 0
    # Why nobody knows, or who took it back, in words.
    detail: str = ""
    intended_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """What the rules of an effect look at, read in one go under the lease's lock.

    known: recorded under its key. ledger: identity of this ledger, the same for its whole life.
    """

    target: Target | None
    unfinished: Operation | None
    known: Effect | None
    ledger: str
