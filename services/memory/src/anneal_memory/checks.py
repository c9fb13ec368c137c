"""Checks of what callers hand in. Each raises InvalidArgument naming the field."""

import re
from dataclasses import replace

from anneal_contracts.canonical import digest
from anneal_runtime.errors import InvalidArgument, cut

from anneal_memory.model import Conflict, Outcome, Scope

_SKILL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_ITEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KINDS = ("bash", "ansible")
_KEY_MAX = 180
_FINGERPRINT_MAX = 300
_ORIGIN_MAX = 100
_TITLE_MAX = 300
_UNDONE_BY_MAX = 50


def check_key(key: str) -> None:
    """An idempotency key has 1 to 180 characters."""
    if not 0 < len(key) <= _KEY_MAX:
        raise InvalidArgument(f"idempotency_key has 1 to {_KEY_MAX} characters", field="idempotency_key")


def check_skill(skill: str) -> None:
    """A skill's name is that of its folder."""
    _match(_SKILL, skill, "skill", "1 to 63 lower-case letters, digits and dashes")


def check_run_id(run_id: str) -> None:
    """A run's id has 1 to 100 characters."""
    _match(_RUN_ID, run_id, "run_id", "1 to 100 letters, digits and _.:-")


def check_scope(scope: Scope) -> None:
    """A skill's name and a fingerprint that is not empty: what holds everywhere holds nowhere."""
    check_skill(scope.skill)
    if not 0 < len(scope.fingerprint) <= _FINGERPRINT_MAX or not scope.fingerprint.isprintable():
        raise InvalidArgument(f"fingerprint has 1 to {_FINGERPRINT_MAX} printable characters", field="fingerprint")


def check_item_id(item_id: str, field: str) -> None:
    """As items are named in contracts."""
    _match(_ITEM, item_id, field, "1 to 200 letters, digits and _.:/-")


def check_conflict(conflict: Conflict, at: str) -> None:
    """An item and those that undid it: at least one, and never itself."""
    check_item_id(conflict.item_id, f"{at}.item_id")
    if not 0 < len(conflict.undone_by) <= _UNDONE_BY_MAX or conflict.item_id in conflict.undone_by:
        raise InvalidArgument(f"{at}.undone_by has 1 to {_UNDONE_BY_MAX} other items", field=f"{at}.undone_by")
    for n, other in enumerate(conflict.undone_by):
        check_item_id(other, f"{at}.undone_by[{n}]")


def checked_outcome(outcome: Outcome, at: str, *, max_content_bytes: int, max_mechanism_chars: int) -> Outcome:
    """An outcome with its explanation cut to the bound. A script is never cut: it is whole, or it is refused."""
    check_item_id(outcome.item_id, f"{at}.item_id")
    _match(_HASH, outcome.action_hash, f"{at}.action_hash", "SHA-256 in lower-case hex")
    if outcome.action_kind not in _KINDS:
        raise InvalidArgument(f"{at}.action_kind is one of {', '.join(_KINDS)}", field=f"{at}.action_kind")
    if len(outcome.content.encode()) > max_content_bytes:
        raise InvalidArgument(f"{at}.content is over {max_content_bytes} bytes", field=f"{at}.content")
    if "\0" in outcome.content + outcome.mechanism + outcome.action_title + outcome.origin:
        raise InvalidArgument(f"{at} holds a NUL character", field=at)
    if outcome.worked and not outcome.content:
        raise InvalidArgument(f"{at}.content is missing: a tip is the script that worked", field=f"{at}.content")
    # A script under another script's hash would be recalled, gated and banned as what it is not.
    if outcome.content and digest(outcome.action_kind, outcome.content) != outcome.action_hash:
        raise InvalidArgument(f"{at}.action_hash is not the hash of kind and content", field=f"{at}.action_hash")
    if len(outcome.origin) > _ORIGIN_MAX:
        raise InvalidArgument(f"{at}.origin has at most {_ORIGIN_MAX} characters", field=f"{at}.origin")
    return replace(
        outcome,
        action_title=cut(outcome.action_title, _TITLE_MAX),
        mechanism=cut(outcome.mechanism, max_mechanism_chars),
    )


def _match(pattern: re.Pattern[str], text: str, field: str, rule: str) -> None:
    if not pattern.fullmatch(text):
        raise InvalidArgument(f"{field} is {rule}, not {text[:80]!r}", field=field)
