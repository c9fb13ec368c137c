"""Circuit, ledger and span around one model call, whatever way it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from anneal_runtime import telemetry
from anneal_runtime.errors import AnnealError, DeadlineExceeded, RateLimited
from anneal_runtime.faults import declare, faultpoint
from opentelemetry.trace import SpanKind, Status, StatusCode

from anneal_gateway import genai
from anneal_gateway.breaker import Breaker, Permit
from anneal_gateway.profiles import Profile
from anneal_gateway.store import Caps, Ledger, Reservation, Settlement
from anneal_gateway.upstream import NOTHING_USED

log = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)

AFTER_RESERVE = declare("gateway.after_reserve")
BEFORE_SETTLE = declare("gateway.before_settle")
AFTER_SETTLE = declare("gateway.after_settle")

_PROVIDER = "openai_compatible"


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A call that may happen: its request as the upstream gets it, and its reservation."""

    profile: Profile
    request: Mapping[str, Any]
    reservation: Reservation


@dataclass(kw_only=True)
class Used:
    """What the upstream has said of a call so far. None: nothing yet."""

    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)

    def read(self, answer: Mapping[str, Any]) -> None:
        """Takes what an answer or one chunk of it tells. Foreign data: anything odd is left out."""
        self.model = str(answer.get("model") or self.model)
        for choice in answer.get("choices") or ():
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self.finish_reasons.append(str(choice["finish_reason"]))
        usage = answer.get("usage")
        if isinstance(usage, dict):
            self.prompt_tokens = _count(usage, "prompt_tokens")
            self.completion_tokens = _count(usage, "completion_tokens")
            self.reasoning_tokens = _count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
            self.cached_tokens = _count(usage.get("prompt_tokens_details"), "cached_tokens") or 0


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@asynccontextmanager
async def accounted(admitted: Admitted, breaker: Breaker, ledger: Ledger) -> AsyncIterator[Used]:
    """Admits, reserves, runs the block within the profile's time, settles. Raises AnnealError classes."""
    r, limits = admitted.reservation, admitted.profile.limits
    used = Used()
    with _span(admitted, used):
        permit = breaker.admit()
        try:
            await ledger.reserve(r, Caps(calls=limits.calls_per_run, tokens=limits.tokens_per_run))
            await faultpoint(AFTER_RESERVE)
            async with _settled(ledger, r, used, permit), _in_time(admitted):
                yield used
        finally:
            # Does nothing unless the call ended before it began.
            permit.withdrawn()


@contextmanager
def _span(admitted: Admitted, used: Used) -> Iterator[None]:
    r, request = admitted.reservation, admitted.request
    asked = {
        genai.OPERATION: genai.CHAT,
        genai.PROVIDER: _PROVIDER,
        genai.REQUEST_MODEL: r.model,
        genai.REQUEST_MAX_TOKENS: request["max_tokens"],
        genai.CONVERSATION_ID: r.run_id,
        genai.SERVER_ADDRESS: urlsplit(admitted.profile.base_url).hostname or "",
        genai.RUN_ID: r.run_id,
        genai.ITEM_ID: r.item_id,
        genai.ROLE: r.role,
        genai.PROFILE: r.profile,
    }
    for name, key in ((genai.REQUEST_TEMPERATURE, "temperature"), (genai.REQUEST_TOP_P, "top_p")):
        if request.get(key) is not None:
            asked[name] = float(request[key])
    with _tracer.start_as_current_span(
        f"{genai.CHAT} {r.model}",
        kind=SpanKind.CLIENT,
        attributes=asked,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as e:
            reason = e.reason if isinstance(e, AnnealError) else type(e).__name__
            span.set_attribute(genai.ERROR_TYPE, reason)
            span.set_status(Status(StatusCode.ERROR, reason))
            raise
        finally:
            span.set_attributes(_answered(used))


def _answered(used: Used) -> dict[str, Any]:
    said = {
        genai.RESPONSE_MODEL: used.model,
        genai.RESPONSE_FINISH_REASONS: used.finish_reasons,
        genai.INPUT_TOKENS: used.prompt_tokens,
        genai.OUTPUT_TOKENS: used.completion_tokens,
        genai.REASONING_TOKENS: used.reasoning_tokens,
        genai.CACHED_TOKENS: used.cached_tokens,
    }
    return {name: value for name, value in said.items() if value}


@asynccontextmanager
async def _in_time(admitted: Admitted) -> AsyncIterator[None]:
    seconds = admitted.profile.timeout_s
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as e:
        name = admitted.reservation.profile
        raise DeadlineExceeded(f"Model server {name} did not answer within {seconds:g} s.") from e


@asynccontextmanager
async def _settled(ledger: Ledger, r: Reservation, used: Used, permit: Permit) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as e:
        _tell(permit, e)
        await _settle(ledger, r, used, e)
        raise
    permit.answered()
    await _settle(ledger, r, used, None)


def _tell(permit: Permit, e: BaseException) -> None:
    """What an error says of the upstream: only its own failures count, not a bad request and not a caller who left."""
    if not isinstance(e, AnnealError):
        permit.withdrawn()
    elif e.retryable and not isinstance(e, RateLimited):
        permit.failed(e.message)
    else:
        permit.answered()


async def _settle(ledger: Ledger, r: Reservation, used: Used, e: BaseException | None) -> None:
    free = isinstance(e, AnnealError) and e.details.get(NOTHING_USED) == "yes"
    reason = "" if e is None else e.reason if isinstance(e, AnnealError) else type(e).__name__
    settlement = Settlement(
        call_id=r.call_id,
        model=used.model,
        reason=reason,
        prompt_tokens=0 if free else used.prompt_tokens,
        completion_tokens=0 if free else used.completion_tokens,
    )
    await faultpoint(BEFORE_SETTLE)
    try:
        # Shielded: a caller who leaves must not leave a reservation behind.
        await asyncio.shield(ledger.settle(settlement))
    except AnnealError as problem:
        # The answer is worth more than the entry: an unsettled reservation is charged in full when it expires.
        log.warning("A model call could not be settled: %s", problem, extra={"call_id": r.call_id})
    await faultpoint(AFTER_SETTLE)
