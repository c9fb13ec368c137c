"""Errors of the gateway's own, and the model door's table from exception to OpenAI's error shape."""

from dataclasses import dataclass
from typing import Any

from anneal_runtime.errors import (
    AnnealError,
    BudgetExhausted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
)


class CircuitOpen(Unavailable):
    """The upstream failed too often; it is left alone for details["retry_after_s"] seconds."""

    reason = "circuit_open"


class UpstreamMisconfigured(FailedPrecondition):
    """The upstream refuses us (key, model name, address); someone has to mend the profile."""

    reason = "upstream_misconfigured"
    http_status = 502


@dataclass(frozen=True, kw_only=True)
class _Row:
    type: str
    code: str


# The first class that fits, most special first. Clients of OpenAI's API decide on type, code and status alone.
_TABLE: tuple[tuple[type[AnnealError], _Row], ...] = (
    (CircuitOpen, _Row(type="service_unavailable", code="circuit_open")),
    (UpstreamMisconfigured, _Row(type="upstream_error", code="upstream_misconfigured")),
    (BudgetExhausted, _Row(type="insufficient_quota", code="insufficient_quota")),
    (RateLimited, _Row(type="rate_limit_error", code="rate_limit_exceeded")),
    (DeadlineExceeded, _Row(type="timeout", code="upstream_timeout")),
    (Unavailable, _Row(type="service_unavailable", code="upstream_unavailable")),
    (Unauthenticated, _Row(type="authentication_error", code="invalid_api_key")),
    (PermissionDenied, _Row(type="permission_error", code="not_permitted")),
    (NotFound, _Row(type="invalid_request_error", code="model_not_found")),
    (InvalidArgument, _Row(type="invalid_request_error", code="invalid_value")),
)


def openai_shape(e: AnnealError) -> dict[str, Any]:
    """The error as OpenAI's clients expect it: message, type, param (the bad field or null), code."""
    row = next((row for cls, row in _TABLE if isinstance(e, cls)), _Row(type="server_error", code=e.reason))
    return {"error": {"message": e.message, "type": row.type, "param": e.field or None, "code": row.code}}


def api_shape(e: AnnealError) -> dict[str, Any]:
    """The same shape for everything that is no model call: the code is the error's own reason."""
    told = openai_shape(e)["error"]
    ours = told["type"] == "server_error" and e.http_status < 500
    return {"error": {**told, "type": "invalid_request_error" if ours else told["type"], "code": e.reason}}


def retry_after(e: AnnealError) -> dict[str, str]:
    """The Retry-After header in whole seconds, where waiting helps."""
    seconds = e.details.get("retry_after_s")
    return {"retry-after": str(max(1, round(float(seconds))))} if seconds else {}
