"""The client of the gateway's model door: the worker's only way to a model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anneal_contracts.canonical import canonical_json
from anneal_contracts.roles import May, ModelRole
from anneal_contracts.work import Usage
from anneal_runtime import telemetry
from anneal_runtime.errors import (
    AnnealError,
    BudgetExhausted,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncOpenAI

# The gateway ends a call at its profile's timeout and says so; this one only guards against a gateway that hangs.
_GUARD_TIMEOUT_S = 900.0
# Profiles are settings of the gateway's: a worker that goes by old ones for so long is refused there.
_KNOWN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class ProfileInfo:
    """What a model profile is and may do, as the gateway tells it. problem: why it cannot be used; empty: it can."""

    name: str
    may: May
    model_by_role: Mapping[str, str]
    max_tokens_by_role: Mapping[str, int] = field(default_factory=dict)
    context_tokens: int = 8192
    # Its model calls functions.
    tools: bool = False
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Whose call it is: what the gateway's limits and its ledger need to know."""

    run_id: str
    item_id: str
    profile: str
    role: ModelRole


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of the model as the server reported it."""

    message: Mapping[str, Any]
    finish_reason: str
    model: str
    usage: Usage
    transcript: bytes


class ModelDoor:
    """Calls of the model through the gateway. Raises AnnealError classes, retryable or not by their type."""

    def __init__(self, url: str, token: str) -> None:
        # Retrying is decided by the caller's turn: a hidden retry would be a step that nobody counted.
        self._client = AsyncOpenAI(
            base_url=url.rstrip("/") + "/v1", api_key=token, max_retries=0, timeout=_GUARD_TIMEOUT_S
        )
        self._known: Mapping[str, ProfileInfo] = {}
        self._known_until = 0.0

    async def profiles(self) -> Mapping[str, ProfileInfo]:
        """The gateway's model profiles by name, as of some seconds ago; "default" is always among them."""
        now = time.monotonic()
        if now < self._known_until:
            return self._known
        try:
            answer = await self._client.get("/profiles", cast_to=object)
        except APIError as e:
            raise _translated(e) from e
        entries = answer["profiles"] if isinstance(answer, dict) else []
        self._known = {entry["name"]: _profile(entry) for entry in entries}
        self._known_until = now + _KNOWN_S
        return self._known

    async def complete(
        self,
        call: Call,
        messages: Sequence[Mapping[str, str]],
        *,
        form: Mapping[str, Any],
        max_tokens: int,
    ) -> Reply:
        """One model call. form: how the answer is held to its contract, in the request's own fields."""
        body = {
            "model": call.role.value,
            "messages": [dict(m) for m in messages],
            "max_tokens": max_tokens,
            **form,
        }
        headers = {
            "x-anneal-run": call.run_id,
            "x-anneal-item": call.item_id,
            "x-anneal-profile": call.profile,
            "x-anneal-role": call.role.value,
            **telemetry.inject(),
        }
        try:
            answer = await self._client.post(
                "/chat/completions", cast_to=object, body=body, options={"headers": headers}
            )
        except APIError as e:
            raise _translated(e) from e
        return _reply(body, answer)

    async def close(self) -> None:
        await self._client.close()


def _profile(entry: Mapping[str, Any]) -> ProfileInfo:
    roles = entry["roles"]
    return ProfileInfo(
        name=entry["name"],
        may=May(entry["may"]),
        model_by_role={role: spec["model"] for role, spec in roles.items()},
        max_tokens_by_role={role: spec["max_tokens"] for role, spec in roles.items()},
        context_tokens=entry["context_tokens"],
        tools=bool(entry.get("tools")),
        problem=entry.get("problem", ""),
    )


def _reply(body: Mapping[str, Any], answer: object) -> Reply:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not choices or not isinstance(choices[0].get("message"), dict):
        raise Unavailable("The model server's answer has no message in it.")
    usage = answer.get("usage") or {}
    return Reply(
        message=choices[0]["message"],
        finish_reason=str(choices[0].get("finish_reason") or ""),
        model=str(answer.get("model") or ""),
        usage=Usage(
            calls=1,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        ),
        transcript=canonical_json({"request": body, "response": answer}),
    )


def _translated(e: APIError) -> AnnealError:
    """The door's typed error as one of ours; the text is the gateway's own, cut short."""
    if isinstance(e, APITimeoutError):
        return DeadlineExceeded("The gateway did not answer in time.")
    if isinstance(e, APIConnectionError):
        return Unavailable("The gateway's model door cannot be reached.")
    # The client's own message has the status in front; the body has the gateway's words alone.
    told = e.body.get("message") if isinstance(e.body, dict) else None
    message = str(told or e.message)[:500]
    if not isinstance(e, APIStatusError):
        return Unavailable(message)
    if e.code == "insufficient_quota":
        return BudgetExhausted(message, field=e.param or "")
    by_status: dict[int, type[AnnealError]] = {
        400: InvalidArgument,
        401: Unauthenticated,
        404: NotFound,
        422: InvalidArgument,
        429: RateLimited,
        504: DeadlineExceeded,
    }
    return by_status.get(e.status_code, Unavailable)(message, field=e.param or "")
