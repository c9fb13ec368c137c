"""What the rules need of a store. Every method runs inside a transaction; an exception undoes all of it."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from anneal_memory.lessons import LessonTx
from anneal_memory.model import Change, Conflict, Memory, Scope


class Tx(LessonTx, Protocol):
    """One transaction."""

    async def once(self, key: str, request: bytes, run: Callable[[], Awaitable[bytes]]) -> bytes:
        """Runs once a key; later calls get the stored answer. Raises AlreadyExists where the request is another."""
        ...

    async def now(self) -> datetime:
        """The store's clock."""
        ...

    async def lock_scope(self, scope: Scope) -> None:
        """Holds back other writers of the scope until the transaction's end: evidence is counted one by one."""
        ...

    async def memories(self, scope: Scope, item_ids: Sequence[str]) -> Sequence[Memory]:
        """All of a scope for these items, forgotten ones too."""
        ...

    async def recallable(self, scope: Scope, item_ids: Sequence[str]) -> Sequence[Memory]:
        """Those in use; bans without their content."""
        ...

    async def newest(self, skill: str, limit: int) -> Sequence[Memory]:
        """In use, last seen first. skill empty: of all skills."""
        ...

    async def memory(self, id_: str) -> Memory | None: ...

    async def save(self, memory: Memory) -> None:
        """Inserts or replaces by id."""
        ...

    async def conflicts(self, scope: Scope, item_ids: Sequence[str], since: datetime) -> Sequence[Conflict]:
        """What undid these items, as seen since then; in order of their ids."""
        ...

    async def save_conflicts(self, scope: Scope, run_id: str, conflicts: Sequence[Conflict]) -> None:
        """Adds them, or marks them as seen again."""
        ...

    async def note(self, memory: Memory, change: Change, run_id: str) -> None:
        """Adds a line to the audit."""
        ...


class Store(Protocol):
    """Opens transactions."""

    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...
