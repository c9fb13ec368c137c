"""Errors that more than one room raises. The classes, and what they are on the wire, are the runtime's."""

from anneal_runtime.errors import Leased, NotFound, StaleToken

from anneal_checkpoint.model import Lease


def missing_target(name: str) -> NotFound:
    """An unknown target, with the next step."""
    return NotFound(f"no target is named {name}; see: anneal target list", field="target")


def leased(lease: Lease) -> Leased:
    """A target that another run holds."""
    until = lease.expires_at.isoformat() if lease.expires_at else ""
    return Leased(
        f"target {lease.target} is leased by run {lease.run_id} until {until}",
        field="target",
        details={"target": lease.target, "run_id": lease.run_id, "expires_at": until},
    )


def stale_token(lease: Lease, run_id: str, token: int) -> StaleToken:
    """A run that does not hold the lease, or does so no longer."""
    now = f"held by run {lease.run_id}" if lease.live else "and nobody holds it"
    return StaleToken(
        f"run {run_id} does not hold target {lease.target} with token {token}: "
        f"the newest token is {lease.token}, {now}",
        field="fencing_token",
        details={"target": lease.target, "run_id": run_id, "token": str(token), "newest": str(lease.token)},
    )


def stale_command(lease: Lease, command_seq: int) -> StaleToken:
    """A command that its own run has left behind: whoever brings it has slept."""
    return StaleToken(
        f"command {command_seq} of run {lease.run_id} comes too late for target {lease.target}: "
        f"command {lease.newest_seq} was carried out since",
        field="command_seq",
        details={"target": lease.target, "command_seq": str(command_seq), "newest": str(lease.newest_seq)},
    )
