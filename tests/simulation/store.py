"""The simulated database of the supervisor: the log, the outbox, and who may append."""

from dataclasses import dataclass, field

from anneal_core import chain

from tests.simulation.bus import Message

RUN_LEASE_S = 15.0


class StaleToken(Exception):
    """Another replica drives the run."""


@dataclass
class Store:
    """What is committed. token: of the replica that may append; owner_until: when others may take the run."""

    log: list[chain.Event] = field(default_factory=list)
    outbox: list[Message] = field(default_factory=list)
    # Ids of the commands that were given out.
    issued: set[str] = field(default_factory=set)
    owner: str = ""
    owner_until: float = 0.0
    token: int = 0
    ended: bool = False

    def append(self, events: list[chain.Event], work: list[Message], token: int, *, ended: bool) -> None:
        """One transaction. Raises StaleToken."""
        if token != self.token:
            raise StaleToken(f"token {token}, but the run is driven under {self.token}")
        if events[0].seq != len(self.log) + 1:
            raise StaleToken(f"event {events[0].seq} is there already")
        self.log.extend(events)
        self.outbox.extend(work)
        self.ended = ended
        for event in events:
            if event.type == "command_issued":
                self.issued.add(event.payload["command_id"])

    def claim(self, owner: str, now: float) -> int:
        """The run for a replica; gives its token."""
        self.owner, self.owner_until = owner, now + RUN_LEASE_S
        self.token += 1
        return self.token
