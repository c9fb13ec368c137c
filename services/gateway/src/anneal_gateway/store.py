"""The ledger of model calls: what was reserved before a call and what it used after."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A model call before it happens. tokens: the most it can use; ttl_s: seconds after which its gateway is dead."""

    call_id: str
    run_id: str
    item_id: str
    profile: str
    role: str
    model: str
    tokens: int
    ttl_s: float


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What a run may use in all."""

    calls: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What a call came to. Tokens of None: the upstream did not say, so the whole reservation is charged."""

    call_id: str
    model: str = ""
    # The error's reason; empty: it was answered.
    reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunUsage:
    """What a run has used so far."""

    calls: int = 0
    tokens_used: int = 0
    tokens_reserved: int = 0


class Ledger(Protocol):
    """Shared by all gateways; each method is atomic."""

    async def reserve(self, reservation: Reservation, caps: Caps) -> None:
        """Counts the call and sets its tokens aside. Raises BudgetExhausted, and then changes nothing."""
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Gives back what was not used. Repeating it, or settling an abandoned call, does nothing."""
        ...

    async def usage(self, run_id: str) -> RunUsage: ...
