"""The model door: admits a call, reserves what it may use, carries it to its upstream, and settles what it used."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from anneal_contracts.roles import May, ModelRole
from anneal_runtime.clock import Clock
from anneal_runtime.errors import InvalidArgument, PermissionDenied

from anneal_gateway.accounting import Admitted, Used, accounted
from anneal_gateway.breaker import Breaker
from anneal_gateway.errors import UpstreamMisconfigured
from anneal_gateway.estimate import prompt_tokens
from anneal_gateway.profiles import DEFAULT, Profile, Profiles
from anneal_gateway.shape import checked, role_of, shaped
from anneal_gateway.store import Ledger, Reservation
from anneal_gateway.upstream import Upstream

# A reservation outlives its call by this many seconds before its gateway counts as dead.
_RESERVATION_MARGIN_S = 60.0
# What a role may do with a profile: no script is ever asked of a model that may not author one.
_NEEDS = {
    ModelRole.WORKER: frozenset({May.AUTHOR}),
    ModelRole.ARCHITECT: frozenset({May.AUTHOR, May.CHOOSE}),
    ModelRole.REFLECTOR: frozenset(May),
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose call it is, from the x-anneal-* headers."""

    run_id: str
    item_id: str = ""
    profile: str = ""
    role: str = ""


class Door:
    """All model calls of this process. Shared limits are in the ledger; circuits are this process's own."""

    def __init__(self, profiles: Profiles, ledger: Ledger, clock: Clock) -> None:
        self._profiles = profiles
        self._ledger = ledger
        self._upstreams = {
            name: Upstream(name, p, profiles.key(name).get_secret_value()) for name, p in profiles.items()
        }
        # One circuit an address: two profiles of one server share its fate.
        self._breakers: dict[str, Breaker] = {}
        for name, profile in profiles.items():
            c = profile.circuit
            self._breakers.setdefault(
                profile.base_url,
                Breaker(name, clock, failures=c.failures, slow_call_s=c.slow_call_s, open_s=c.open_s),
            )

    @property
    def profiles(self) -> Profiles:
        return self._profiles

    def circuit(self, profile: Profile) -> str:
        """State of the circuit of a profile's server."""
        return self._breakers[profile.base_url].state.value

    async def complete(self, caller: Caller, body: Any) -> dict[str, Any]:
        """One whole answer, as the upstream gave it. Raises AnnealError; a refused call costs nothing."""
        admitted = self._admit(caller, body)
        async with self._accounted(admitted) as used:
            answer = await self._upstreams[admitted.reservation.profile].complete(admitted.request)
            used.read(answer)
            return answer

    async def stream(self, caller: Caller, body: Any) -> AsyncIterator[str]:
        """The answer's event lines as they come. Errors before the first line are raised, later ones end the stream."""
        admitted = self._admit(caller, body)
        upstream = self._upstreams[admitted.reservation.profile]
        async with self._accounted(admitted) as used, upstream.stream(admitted.request) as lines:
            async for line in lines:
                _peek(line, used)
                yield line

    def _admit(self, caller: Caller, body: Any) -> Admitted:
        request = checked(body)
        if not caller.run_id:
            raise InvalidArgument("Every model call belongs to a run.", field="x-anneal-run")
        name = caller.profile or DEFAULT
        profile = self._profiles.get(name)
        if problem := self._profiles.problem(name):
            raise UpstreamMisconfigured(f"Model profile {name!r} cannot be used: {problem}", field="x-anneal-profile")
        role = role_of(str(request.get("model") or ""), caller.role, profile)
        if profile.may not in _NEEDS[role]:
            raise PermissionDenied(
                f"Model profile {name!r} may: {profile.may.value}; that is not enough for the role {role.value}.",
                field="x-anneal-role",
            )
        sent = shaped(request, profile, role)
        reservation = Reservation(
            call_id=str(uuid.uuid4()),
            run_id=caller.run_id,
            item_id=caller.item_id,
            profile=name,
            role=role.value,
            model=sent["model"],
            tokens=prompt_tokens(sent) + sent["max_tokens"],
            ttl_s=profile.timeout_s + _RESERVATION_MARGIN_S,
        )
        return Admitted(profile=profile, request=sent, reservation=reservation)

    def _accounted(self, admitted: Admitted) -> AbstractAsyncContextManager[Used]:
        return accounted(admitted, self._breakers[admitted.profile.base_url], self._ledger)

    async def close(self) -> None:
        for upstream in self._upstreams.values():
            await upstream.close()


def _peek(line: str, used: Used) -> None:
    """Reads what one event line of a stream tells of usage; the line itself goes on untouched."""
    if line.startswith("data:") and line[5:].strip() not in ("", "[DONE]"):
        try:
            chunk = json.loads(line[5:])
        except ValueError:
            return
        if isinstance(chunk, dict):
            used.read(chunk)
