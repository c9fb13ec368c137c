"""Canonical JSON and digests: one byte string per value, so that equal values have equal hashes.

Sorted keys, no white space, UTF-8, no NaN: the subset of RFC 8785 that our payloads need (integers, strings, booleans,
null, finite floats as Python prints them).
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> bytes:
    """Returns value (plain data or a Pydantic model) as canonical JSON. Raises ValueError for NaN and infinities."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    """SHA-256 of data in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of the parts: a key that depends on nothing but their values."""
    return sha256_hex(canonical_json(list(parts)))
