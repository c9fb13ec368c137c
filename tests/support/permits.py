"""Leave to carry an effect out, for tests that have no ledger."""

from anneal_skillkit.effects import standing
from anneal_skillkit.interfaces import Guard, Permit, TargetSession


async def permit_for(
    session: TargetSession,
    key: str,
    *,
    command_seq: int = 1,
    token: int = 1,
    lease_s: float = 300.0,
    undoes: str = "",
    guard: Guard | None = None,
) -> Permit:
    """A permit as a worker would make it now."""
    now = await standing(session)
    return Permit(
        key=key,
        ledger="tests",
        token=token,
        command_seq=command_seq,
        boot=now.boot,
        until=now.uptime + round(lease_s * 100),
        undoes=undoes,
        guard=guard,
    )
