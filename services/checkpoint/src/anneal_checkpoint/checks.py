"""Checks of single fields, shared by all RPCs. Each raises InvalidArgument naming the field."""

import re

from anneal_runtime.errors import InvalidArgument

_TARGET = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_KEY_MAX = 180


def check_key(key: str, field: str = "idempotency_key") -> None:
    """A key has 1 to 180 characters."""
    if not 0 < len(key) <= _KEY_MAX:
        raise InvalidArgument(f"{field} has 1 to {_KEY_MAX} characters", field=field)


def check_target_name(name: str, field: str) -> None:
    """Lower-case letters, digits and dashes: the name is also part of file names and of DNS names."""
    if not _TARGET.fullmatch(name):
        raise InvalidArgument(
            f"{field} is 1 to 63 lower-case letters, digits and dashes, not {name[:80]!r}", field=field
        )


def check_run_id(run_id: str, field: str = "run_id") -> None:
    """A run's id has 1 to 100 letters, digits and _ . : -"""
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidArgument(f"{field} is 1 to 100 letters, digits and _.:-, not {run_id[:120]!r}", field=field)


def check_generation(generation: int) -> None:
    """Generations count from 0."""
    if generation < 0:
        raise InvalidArgument(f"generation counts from 0, not {generation}", field="generation")
