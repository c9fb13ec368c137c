"""What the rules need of a store. Every method runs inside a transaction; an exception undoes all of it."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from anneal_checkpoint.model import (
    Effect,
    EffectState,
    Grounds,
    Lease,
    Operation,
    Scene,
    Snapshot,
    SnapshotState,
    Target,
)


class Tx(Protocol):
    """One transaction. Reads see what was committed before them; "locks" holds a row until the transaction's end."""

    async def once(self, key: str, request: bytes, run: Callable[[], Awaitable[bytes]]) -> bytes:
        """Runs once a key; later calls get the stored answer. Raises AlreadyExists where the request is another."""
        ...

    async def target(self, name: str) -> Target | None: ...

    async def held_target(self, name: str) -> tuple[Target | None, str]:
        """A target, and the run whose lease on it is live by the store's clock."""
        ...

    async def targets(self) -> Sequence[Target]:
        """All targets by name."""
        ...

    async def insert_target(self, target: Target) -> bool:
        """False where the name is taken."""
        ...

    async def delete_target(self, name: str) -> None: ...

    async def lock_lease(self, target: str) -> Lease:
        """Locks the target's lease row, made where it is missing. It outlives the target: its token never falls."""
        ...

    async def holders(self) -> Mapping[str, str]:
        """Target -> run, of the leases that are live by the store's clock."""
        ...

    async def grant(self, target: str, run_id: str, token: int, ttl_s: float) -> datetime:
        """Writes the lease row; it expires ttl_s from now by the store's clock, never earlier than it would have."""
        ...

    async def note_command(self, target: str, command_seq: int) -> None:
        """The newest command of the holder's log; a new token starts from 0."""
        ...

    async def clear_lease(self, target: str) -> None:
        """Nobody holds the target; the token stays."""
        ...

    async def scene(self, target: str, run_id: str, generation: int, key: str) -> Scene: ...

    async def insert_operation(self, operation: Operation) -> None: ...

    async def start_operation(self, key: str, changed_paths: Sequence[str]) -> None: ...

    async def finish_operation(self, key: str, *, restored: bool, took_s: float) -> Operation:
        """Records the end; returns the operation as it stands."""
        ...

    async def unfinished_restore(self, target: str) -> Operation | None:
        """The newest restore that began to change the target and has no end."""
        ...

    async def half_restored(self) -> Sequence[str]:
        """Names of the targets that have an unfinished restore."""
        ...

    async def finish_restores(self, target: str) -> None:
        """Marks every unfinished restore of the target as done: a later one has brought it to a known state."""
        ...

    async def purge_operations(self, older_than_s: float) -> None:
        """Forgets operations that were done longer ago."""
        ...

    async def snapshot(self, target: str, run_id: str, generation: int) -> Snapshot | None: ...

    async def snapshots(self, target: str, *, run_id: str | None = None) -> Sequence[Snapshot]:
        """Saved states of a target that are not dropped (yet), newest first."""
        ...

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Inserts or replaces; taken_at becomes now where the state is kept."""
        ...

    async def keep_snapshot(
        self,
        name: str,
        operation: Operation,
        *,
        dropping: Sequence[str],
        dropped: Sequence[str],
        following: Snapshot,
    ) -> None:
        """The state is whole and the operation done, from now on; those named are marked, or gone.

        following: the next state, announced where nothing is known of it.
        """
        ...

    async def mark_snapshots(self, names: Sequence[str], state: SnapshotState) -> None: ...

    async def snapshots_to_drop(self) -> Sequence[Snapshot]: ...

    async def grounds(self, target: str, key: str) -> Grounds: ...

    async def effect(self, key: str) -> Effect | None:
        """Locks the effect's row."""
        ...

    async def begin_effect(self, effect: Effect) -> tuple[Effect, str, float] | None:
        """Inserts an effect as insert_effect does, in one statement; with ledger id and seconds of lease left.

        None where any rule of beginning one might object, and nothing is written then.
        """
        ...

    async def insert_effect(self, effect: Effect) -> Effect:
        """Notes its command as the newest of the target's lease as well."""
        ...

    async def end_effect(
        self, key: str, state: EffectState, exit_code: int, detail: str, *, after: Collection[EffectState]
    ) -> Effect | None:
        """Writes an end where the effect is in one of these states, and takes no other back; else None."""
        ...

    async def update_effect(self, effect: Effect) -> Effect:
        """Writes state, exit code, detail, token and command; the times become now with their states."""
        ...

    async def effects(self, run_id: str) -> Sequence[Effect]:
        """A run's effects in the order in which they were intended."""
        ...

    async def has_open_effects(self, target: str, run_id: str) -> bool:
        """Whether a run has effects without an end."""
        ...

    async def revert_effects(self, target: str, since: datetime) -> None:
        """Marks the target's effects that were intended after a moment as reverted, whatever came of them."""
        ...

    async def abandon_effects(self, target: str, run_id: str, detail: str) -> None:
        """Marks a run's effects without an end as unknown: nobody will come back and look."""
        ...


class Store(Protocol):
    """Opens transactions."""

    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...

    def glance(self) -> AbstractAsyncContextManager[Tx]:
        """For a single read, which needs no transaction around it."""
        ...
