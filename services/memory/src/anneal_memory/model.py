"""Records of the memory service. Immutable; times are aware UTC datetimes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    """What a remembered action is good for."""

    TIP = "tip"  # it worked: try it early
    BAN = "ban"  # it failed cleanly: do not try it again


class Change(StrEnum):
    """What a run or a person did to a remembered action; one line of the audit."""

    LEARNT = "learnt"  # first seen, as tip or as ban
    CREDITED = "credited"  # its advice was followed and worked
    DEBITED = "debited"  # its advice was followed and did not work
    CONFIRMED = "confirmed"  # seen to work again without its advice: fresh, but no credit
    BANNED = "banned"  # a tip that fell below the bound
    LIFTED = "lifted"  # a ban whose action worked after all
    REPEATED = "repeated"  # a ban whose action failed again
    FORGOTTEN = "forgotten"  # a person took it out of use


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where something was learnt and where alone it holds: a skill, on machines with exactly this fingerprint."""

    skill: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one action in a run. tip_id: the tip whose advice was followed, empty: none."""

    item_id: str
    action_hash: str
    action_kind: str
    action_title: str
    content: str
    origin: str
    worked: bool
    mechanism: str
    tip_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """An item whose fix was undone by those of others."""

    item_id: str
    undone_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One remembered action: a row. seen_at: when evidence last supported its kind; run_id: whose evidence that was."""

    id: str
    skill: str
    item_id: str
    fingerprint: str
    kind: Kind
    action_hash: str
    action_kind: str
    action_title: str
    content: str
    origin: str
    mechanism: str
    run_id: str
    uses: int
    successes: int
    seen_at: datetime
    forgotten: bool = False


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A memory with its utility at the moment of asking."""

    memory: Memory
    utility: float
