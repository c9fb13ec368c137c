"""What both ends of a gRPC call agree on: metadata keys, limits, how an error travels, the caller's deadline."""

import json
from contextvars import ContextVar
from typing import Any

from anneal_runtime.errors import AnnealError, cut, from_payload, to_payload

ERROR_KEY = "anneal-error-bin"
AUTH_KEY = "authorization"
# gRPC's word to the caller's library: the servicer has spoken, do not try again by yourself.
NO_RETRY = ("grpc-retry-pushback-ms", "-1")
MAX_MESSAGE_MB = 64
# gRPC refuses more than 8 KiB of metadata by default; this leaves room for the rest.
_MAX_PAYLOAD = 4096
_SHORT = 200

# Loop time at which the call that is being served runs out; calls made on its behalf do not outlive it.
deadline: ContextVar[float | None] = ContextVar("anneal_deadline", default=None)


def serves_nobody() -> None:
    """Says of the running task that no caller waits for it: it inherits the deadline of the call that began it."""
    deadline.set(None)


def size_options(max_message_mb: int) -> list[tuple[str, Any]]:
    """Channel and server options that bound a message."""
    limit = max_message_mb << 20
    return [("grpc.max_send_message_length", limit), ("grpc.max_receive_message_length", limit)]


def encode_error(e: AnnealError) -> bytes:
    """Payload for the metadata, at most 4 KiB: texts are shortened, then details dropped, when it is more."""
    payload = to_payload(e)
    data = json.dumps(payload).encode()
    if len(data) > _MAX_PAYLOAD:
        payload["message"] = cut(payload["message"], _SHORT)
        payload["field"] = cut(payload["field"], _SHORT)
        payload["details"] = {k: cut(v, _SHORT) for k, v in list(payload["details"].items())[:8] if len(k) <= _SHORT}
        data = json.dumps(payload).encode()
    if len(data) > _MAX_PAYLOAD:
        data = json.dumps({**payload, "details": {}}).encode()
    return data


def decode_error(data: bytes) -> AnnealError | None:
    """The error in a payload; None when it cannot be read."""
    try:
        payload = json.loads(data)
    except ValueError:
        return None
    return from_payload(payload) if isinstance(payload, dict) else None
