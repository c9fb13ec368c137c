"""The one table from exception to wire: class -> reason, gRPC status, HTTP status, retryable or not.

Whether to retry is a property of the error, not a decision at each call site. Errors survive being stored and reloaded
(`to_payload`, `from_payload`) and crossing a gRPC call (`anneal_runtime.rpc`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from grpc import StatusCode

# Foreign text in errors is cut to this many characters: metadata of a gRPC call has little room.
MAX_TEXT = 1000
_MARK = " ...[cut]"


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Returns text with at most limit characters, with a mark where it was cut."""
    return text if len(text) <= limit else text[: limit - len(_MARK)] + _MARK


class AnnealError(Exception):
    """Base of all errors that cross a boundary. A subclass states its row of the table as class attributes.

    message is for people and safe to show; field names the bad input (empty: none); details are further facts.
    """

    reason: ClassVar[str] = "unknown"
    grpc_status: ClassVar[StatusCode] = StatusCode.UNKNOWN
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    _by_reason: ClassVar[dict[str, type["AnnealError"]]] = {}

    def __init__(self, message: str, *, field: str = "", details: Mapping[str, str] | None = None) -> None:
        self.message = cut(message)
        self.field = field
        self.details: dict[str, str] = {key: cut(str(value)) for key, value in (details or {}).items()}
        super().__init__(self.message)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "reason" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} must state a reason of its own")
        other = AnnealError._by_reason.get(cls.reason)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise TypeError(f"reason {cls.reason!r} of {cls.__name__} is already taken by {other.__name__}")
        AnnealError._by_reason[cls.reason] = cls

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return from_payload, (to_payload(self),)


class InvalidArgument(AnnealError):
    """The input itself is wrong; the same call will never work."""

    reason = "invalid_argument"
    grpc_status = StatusCode.INVALID_ARGUMENT
    http_status = 400


class NotFound(AnnealError):
    """What was named does not exist."""

    reason = "not_found"
    grpc_status = StatusCode.NOT_FOUND
    http_status = 404


class AlreadyExists(AnnealError):
    """Something else has this name, or this idempotency key belongs to another request."""

    reason = "already_exists"
    grpc_status = StatusCode.ALREADY_EXISTS
    http_status = 409


class FailedPrecondition(AnnealError):
    """The input is fine, the state of the world is not; someone has to change it first."""

    reason = "failed_precondition"
    grpc_status = StatusCode.FAILED_PRECONDITION
    http_status = 409


class Conflict(AnnealError):
    """A concurrent writer won. Read again and decide again; repeating the same call blindly is wrong."""

    reason = "conflict"
    grpc_status = StatusCode.ABORTED
    http_status = 409


class Leased(FailedPrecondition):
    """Another run holds the lease of the target."""

    reason = "leased"


class StaleToken(FailedPrecondition):
    """The fencing token was overtaken by a newer holder: stop at once."""

    reason = "stale_token"


class PermissionDenied(AnnealError):
    """The caller is known and may not do this."""

    reason = "permission_denied"
    grpc_status = StatusCode.PERMISSION_DENIED
    http_status = 403


class Unauthenticated(AnnealError):
    """The caller is not known."""

    reason = "unauthenticated"
    grpc_status = StatusCode.UNAUTHENTICATED
    http_status = 401


class BudgetExhausted(AnnealError):
    """A budget of steps, tokens or time is used up; waiting does not help."""

    reason = "budget_exhausted"
    grpc_status = StatusCode.RESOURCE_EXHAUSTED
    http_status = 429


class RateLimited(AnnealError):
    """Too many calls in the window; the same call works later."""

    reason = "rate_limited"
    grpc_status = StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    retryable = True


class Unavailable(AnnealError):
    """A service, the database or the bus does not answer right now."""

    reason = "unavailable"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    retryable = True


class DeadlineExceeded(AnnealError):
    """The caller's time ran out; whether the work was done is not known."""

    reason = "deadline_exceeded"
    grpc_status = StatusCode.DEADLINE_EXCEEDED
    http_status = 504
    retryable = True


class TargetUnreachable(AnnealError):
    """The target does not answer, or the connection to it was lost."""

    reason = "target_unreachable"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    retryable = True


class HostKeyChanged(FailedPrecondition):
    """The target shows another host key than the one on record: never talk to it until a person has looked."""

    reason = "host_key_changed"


class Internal(AnnealError):
    """A defect of ours. What happened is in the log, not in the message."""

    reason = "internal"
    grpc_status = StatusCode.INTERNAL
    http_status = 500


class Crashed(Internal):
    """A handler broke while it carried a message out: a defect of ours, or a message that nothing can carry out."""

    reason = "crashed"


class DoerDied(Internal):
    """Every process that took the message died, or was stopped, before it could say what came of it."""

    reason = "doer_died"


class Unreadable(InvalidArgument):
    """A message that is none of ours, or of another version."""

    reason = "unreadable"


class DataLoss(AnnealError):
    """Stored data is not what was written."""

    reason = "data_loss"
    grpc_status = StatusCode.DATA_LOSS
    http_status = 500


# What a bare status means when it comes without a payload (a proxy, gRPC itself, a peer of another make).
BY_STATUS: Mapping[StatusCode, type[AnnealError]] = {
    StatusCode.CANCELLED: Unavailable,
    StatusCode.INVALID_ARGUMENT: InvalidArgument,
    StatusCode.OUT_OF_RANGE: InvalidArgument,
    StatusCode.NOT_FOUND: NotFound,
    StatusCode.ALREADY_EXISTS: AlreadyExists,
    StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    StatusCode.ABORTED: Conflict,
    StatusCode.PERMISSION_DENIED: PermissionDenied,
    StatusCode.UNAUTHENTICATED: Unauthenticated,
    StatusCode.RESOURCE_EXHAUSTED: BudgetExhausted,
    StatusCode.UNAVAILABLE: Unavailable,
    StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    StatusCode.DATA_LOSS: DataLoss,
}


def to_payload(e: AnnealError) -> dict[str, Any]:
    """Plain data of an error: reason, status (gRPC name), message, field, details."""
    return {
        "reason": e.reason,
        "status": e.grpc_status.name,
        "message": e.message,
        "field": e.field,
        "details": dict(e.details),
    }


def from_payload(d: Mapping[str, Any]) -> AnnealError:
    """The error that was stored. A reason not known here gives the class of its status, with the reason in details."""
    details = {str(key): str(value) for key, value in (d.get("details") or {}).items()}
    reason = str(d.get("reason", ""))
    cls = AnnealError._by_reason.get(reason)
    if cls is None:
        status = StatusCode.__members__.get(str(d.get("status", "")), StatusCode.INTERNAL)
        cls = BY_STATUS.get(status, Internal)
        details.setdefault("reason", reason)
    return cls(str(d.get("message", "")), field=str(d.get("field", "")), details=details)


def from_status(status: StatusCode, message: str) -> AnnealError:
    """The error of a bare gRPC status."""
    return BY_STATUS.get(status, Internal)(message or status.name.lower().replace("_", " "))
