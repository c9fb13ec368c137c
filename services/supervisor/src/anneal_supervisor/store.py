"""What the supervisor keeps, as a Protocol: one conformance suite holds for every backend."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from anneal_core.chain import Event


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A message that leaves after the commit. msg_id lets the bus drop a repetition."""

    subject: str
    msg_id: str
    data: bytes


# A message in the outbox, with the id of its row.
Left = tuple[int, Outgoing]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a run's log ends, as recorded beside it."""

    seq: int
    hash: str
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A supervisor process. place: host and address, which one living process at a time can have; so whoever has it
    next is the successor. address: where other replicas reach it; life: tells it from its predecessors.
    """

    place: str
    address: str
    life: str

    @property
    def owner(self) -> str:
        """How it signs for its runs."""
        return f"{self.place}#{self.life}"


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """runs: pairs of id and token. next_s: seconds until the first lease of another replica ends, if there is one."""

    runs: Sequence[tuple[str, int]] = ()
    next_s: float | None = None


class Store(Protocol):
    """All writes are transactions; whatever raises has changed nothing."""

    async def create_run(self, key: str, request: bytes, events: Sequence[Event], summary: bytes) -> str:
        """Creates a run with its first events; the same key and request again give the same run id."""
        ...

    async def created(self, key: str, request: bytes) -> str:
        """The run that was created for this key and request; empty: none. Raises AlreadyExists for another request."""
        ...

    async def append(
        self, events: Sequence[Event], outgoing: Sequence[Outgoing], *, token: int, summary: bytes | None, ended: bool
    ) -> Sequence[Left]:
        """Appends events of one run with their messages. Raises StaleToken where another replica drives the run now."""
        ...

    async def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> list[Event]:
        """The events after a number. Raises DataLoss where the first of them cannot be read."""
        ...

    async def head(self, run_id: str) -> Head:
        """Raises NotFound."""
        ...

    async def summaries(self, limit: int) -> list[bytes]:
        """Serialised Run messages without items, newest first."""
        ...

    async def claim(self, replica: Replica, lease_s: float, limit: int, held: Sequence[str]) -> Claimed:
        """Takes runs that nobody drives, those of a predecessor in the replica's place among them, without `held`."""
        ...

    async def driver_address(self, run_id: str) -> str:
        """Where the replica is reached that drives a run now; empty: nobody drives it."""
        ...

    async def addresses(self) -> list[str]:
        """Where all replicas are reached that drive a run now."""
        ...

    async def renew(self, owner: str, lease_s: float, run_ids: Sequence[str]) -> set[str]:
        """Prolongs leases, late ones too while nobody else has the run; what is missing in the answer was lost."""
        ...

    async def let_go(self, owner: str) -> None:
        """Gives all runs of this replica back at once."""
        ...

    async def put_outgoing(self, outgoing: Sequence[Outgoing]) -> Sequence[Left]:
        """Messages that leave again without a new event."""
        ...

    async def take_outgoing(self, limit: int, without: Collection[int]) -> Sequence[Left]:
        """What lies in the outbox, oldest first, but for the rows of these ids."""
        ...

    async def drop_outgoing(self, ids: Collection[int]) -> None: ...

    async def put_blob(self, sha256: str, media_type: str, content: bytes) -> None: ...

    async def get_blob(self, sha256: str) -> tuple[str, bytes]:
        """Media type and content. Raises NotFound."""
        ...
