"""Leases: one run at a time may change a target, and each new holder has a higher fencing token.

A lease ends when it is released or when another run takes it over after it expired. Expiry alone takes the right to
change the target away at once, but as long as nobody came in between, the same run gets the same token back.
What a holder leaves without an end becomes unknown in the ledger when it lets go, or when another run comes.
Answers are not stored under the idempotency key: an old answer about time would be a lie. Acquiring and renewing are
idempotent by (target, run) instead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from anneal_contracts.canonical import canonical_json
from anneal_runtime.errors import InvalidArgument
from anneal_runtime.faults import declare, faultpoint

from anneal_checkpoint.checks import check_key, check_run_id
from anneal_checkpoint.errors import leased, missing_target, stale_command, stale_token
from anneal_checkpoint.model import Lease, TargetView
from anneal_checkpoint.retention import retire_runs
from anneal_checkpoint.store import Store, Tx
from anneal_checkpoint.targets import Targets

AFTER_GRANT = declare("checkpoint.after_lease_granted")
AFTER_RENEW = declare("checkpoint.after_lease_renewed")
AFTER_RELEASE = declare("checkpoint.after_lease_released")


def next_token(lease: Lease, run_id: str) -> int:
    """Token with which run_id gets the lease. Raises Leased where another run holds it."""
    if lease.run_id == run_id:
        return lease.token
    if lease.live:
        raise leased(lease)
    return lease.token + 1


def is_last_holder(lease: Lease, run_id: str, token: int) -> bool:
    """True where run_id holds the lease with this token, or held it until it expired and nobody came since."""
    return lease.run_id == run_id and lease.token == token


def check_holder(lease: Lease, run_id: str, token: int) -> None:
    """Raises StaleToken unless run_id holds the (locked) lease with this token now."""
    if not (lease.live and is_last_holder(lease, run_id, token)):
        raise stale_token(lease, run_id, token)


def check_order(lease: Lease, command_seq: int) -> None:
    """Raises StaleToken for a command of the holder's log that is older than the newest of the (locked) lease."""
    if command_seq < lease.newest_seq:
        raise stale_command(lease, command_seq)


async def take_command(tx: Tx, lease: Lease, command_seq: int) -> None:
    """Notes a command of the holder's log as the newest of the (locked) lease. Raises StaleToken for an older one."""
    check_order(lease, command_seq)
    if command_seq > lease.newest_seq:
        await tx.note_command(lease.target, command_seq)


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A lease as its holder gets it."""

    token: int
    expires_at: datetime
    target: TargetView


class Leases:
    """The rules above, over a store."""

    def __init__(
        self, store: Store, targets: Targets, *, ttl_max_s: float, keep_runs: int, wake_sweeper: Callable[[], None]
    ) -> None:
        self._store = store
        self._targets = targets
        self._ttl_max_s = ttl_max_s
        self._keep_runs = keep_runs
        self._wake_sweeper = wake_sweeper

    async def acquire(self, key: str, target: str, run_id: str, ttl_s: float) -> Granted:
        """Gets the lease or prolongs it. Raises NotFound, Leased, TargetUnreachable, InvalidArgument."""
        check_key(key)
        check_run_id(run_id)
        self._check_ttl(ttl_s)
        # Reached first: a target that cannot be reached leaves no lease behind.
        view = await self._targets.get(target)
        async with self._store.transaction() as tx:
            lease = await tx.lock_lease(target)
            if await tx.target(target) is None:
                raise missing_target(target)
            token = next_token(lease, run_id)
            if lease.run_id not in ("", run_id):
                await tx.abandon_effects(
                    target, lease.run_id, f"its lease ran out, and run {run_id} took the target over"
                )
            expires_at = await tx.grant(target, run_id, token, ttl_s)
        await faultpoint(AFTER_GRANT)
        return Granted(token=token, expires_at=expires_at, target=view)

    async def renew(self, key: str, target: str, run_id: str, token: int, ttl_s: float) -> datetime:
        """Prolongs the lease, also an expired one that nobody has taken. Raises StaleToken."""
        check_key(key)
        self._check_ttl(ttl_s)
        async with self._store.transaction() as tx:
            lease = await tx.lock_lease(target)
            if not is_last_holder(lease, run_id, token):
                raise stale_token(lease, run_id, token)
            expires_at = await tx.grant(target, run_id, token, ttl_s)
        await faultpoint(AFTER_RENEW)
        return expires_at

    async def release(self, key: str, target: str, run_id: str, token: int) -> None:
        """Gives the lease back; a lease that was given back stays so. Raises StaleToken where another run has it."""
        check_key(key)
        request = canonical_json({"target": target, "run_id": run_id, "fencing_token": token})
        async with self._store.transaction() as tx:

            async def give_back() -> bytes:
                lease = await tx.lock_lease(target)
                if not lease.run_id and lease.token == token:
                    return b""
                if not is_last_holder(lease, run_id, token):
                    raise stale_token(lease, run_id, token)
                await tx.clear_lease(target)
                await tx.abandon_effects(target, run_id, "its run gave the target back before the end was known")
                await retire_runs(tx, target, keep_runs=self._keep_runs)
                return b""

            await tx.once(f"ReleaseLease:{key}", request, give_back)
        await faultpoint(AFTER_RELEASE)
        self._wake_sweeper()

    def _check_ttl(self, ttl_s: float) -> None:
        if not math.isfinite(ttl_s) or not 0 < ttl_s <= self._ttl_max_s:
            raise InvalidArgument(f"ttl is above 0 and at most {self._ttl_max_s:g} seconds, not {ttl_s:g}", field="ttl")
