"""How evidence becomes memory, and what a memory is worth. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from anneal_contracts.canonical import digest

from anneal_memory.model import Change, Kind, Memory, Outcome, Ranked, Scope

_DAY_S = 86_400.0


def share(uses: int, successes: int) -> float:
    """Smoothed share of success: (successes + 1) / (uses + 2), between 0 and 1, both excluded.

    The mean of a Beta(1, 1) prior after this evidence, known as Laplace's rule of succession (Laplace, "Essai
    philosophique sur les probabilités", 1814): one lucky use counts 2/3 and not 1.
    """
    return (successes + 1) / (uses + 2)


def utility(uses: int, successes: int, age_s: float, half_life_days: float) -> float:
    """What a tip is worth now: share(uses, successes) * 0.5 ** (age / half-life); age since it last worked.

    Exponential decay by recency as in Park et al., "Generative Agents" (UIST 2023), section 4.1, as a half-life.
    A clock that runs behind makes no tip worth more than its share.
    """
    return share(uses, successes) * math.pow(0.5, max(age_s, 0.0) / (half_life_days * _DAY_S))


def memory_id(scope: Scope, item_id: str, action_hash: str) -> str:
    """The id that this action has for this item in this scope, in every installation: 32 hex characters."""
    return digest("memory", scope.skill, scope.fingerprint, item_id, action_hash)[:32]


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """A memory after one outcome, and what was done to it."""

    memory: Memory
    change: Change


def first_seen(scope: Scope, outcome: Outcome, run_id: str, at: datetime) -> Learnt:
    """A memory of an action not seen before: what it did once is its first evidence."""
    memory = Memory(
        id=memory_id(scope, outcome.item_id, outcome.action_hash),
        skill=scope.skill,
        item_id=outcome.item_id,
        fingerprint=scope.fingerprint,
        kind=Kind.TIP if outcome.worked else Kind.BAN,
        action_hash=outcome.action_hash,
        action_kind=outcome.action_kind,
        action_title=outcome.action_title,
        content=outcome.content,
        origin=outcome.origin,
        mechanism=outcome.mechanism,
        run_id=run_id,
        uses=1,
        successes=1 if outcome.worked else 0,
        seen_at=at,
    )
    return Learnt(memory=memory, change=Change.LEARNT)


def credit(memory: Memory, worked: bool, run_id: str, at: datetime, *, ban_below: float) -> Learnt:
    """A tip whose advice was followed. One that fails too often becomes a ban; a ban that worked is lifted."""
    counted = replace(memory, uses=memory.uses + 1, successes=memory.successes + int(worked))
    if worked:
        change = Change.CREDITED if memory.kind is Kind.TIP else Change.LIFTED
        return Learnt(memory=replace(counted, kind=Kind.TIP, run_id=run_id, seen_at=at), change=change)
    if memory.kind is Kind.BAN:
        return Learnt(memory=replace(counted, run_id=run_id, seen_at=at), change=Change.REPEATED)
    if share(counted.uses, counted.successes) < ban_below:
        return Learnt(memory=replace(counted, kind=Kind.BAN, run_id=run_id, seen_at=at), change=Change.BANNED)
    return Learnt(memory=counted, change=Change.DEBITED)


def seen_again(memory: Memory, outcome: Outcome, run_id: str, at: datetime) -> Learnt | None:
    """The same action, tried for another reason than this memory's advice: no credit and no debit to a tip.

    A success keeps a tip fresh and lifts a ban; a failure keeps a ban fresh and says nothing of a tip (None).
    """
    if not outcome.worked:
        if memory.kind is Kind.TIP:
            return None
        repeated = replace(memory, uses=memory.uses + 1, run_id=run_id, seen_at=at)
        return Learnt(memory=_filled(repeated, outcome), change=Change.REPEATED)
    if memory.kind is Kind.BAN:
        lifted = replace(
            memory, kind=Kind.TIP, uses=memory.uses + 1, successes=memory.successes + 1, run_id=run_id, seen_at=at
        )
        return Learnt(memory=_filled(lifted, outcome), change=Change.LIFTED)
    confirmed = replace(memory, run_id=run_id, seen_at=at)
    return Learnt(memory=_filled(confirmed, outcome), change=Change.CONFIRMED)


def _filled(memory: Memory, outcome: Outcome) -> Memory:
    """Takes what was missing from the newer outcome: a ban may have been recorded without its script."""
    return replace(
        memory,
        content=memory.content or outcome.content,
        mechanism=outcome.mechanism or memory.mechanism,
        action_title=memory.action_title or outcome.action_title,
    )


@dataclass(frozen=True, kw_only=True)
class RecallLimits:
    """Bounds of a recall; see the settings of the same names."""

    half_life_days: float
    tip_ttl_days: float
    ban_ttl_days: float
    bans_per_item: int


def ranked(memories: Iterable[Memory], now: datetime, limits: RecallLimits) -> list[Ranked]:
    """All in use and not too old, best first; among equals the id decides, so that the order is always the same."""
    age = {Kind.TIP: timedelta(days=limits.tip_ttl_days), Kind.BAN: timedelta(days=limits.ban_ttl_days)}
    found = [
        Ranked(
            memory=m,
            utility=utility(m.uses, m.successes, (now - m.seen_at).total_seconds(), limits.half_life_days),
        )
        for m in memories
        if not m.forgotten and now - m.seen_at <= age[m.kind]
    ]
    return sorted(found, key=lambda r: (-r.utility, r.memory.id))


def select(memories: Iterable[Memory], item_ids: Sequence[str], now: datetime, limits: RecallLimits) -> list[Ranked]:
    """What a recall gives: for each item in the order asked, its best tip, then its newest bans."""
    by_item: defaultdict[str, list[Ranked]] = defaultdict(list)
    for one in ranked(memories, now, limits):
        by_item[one.memory.item_id].append(one)
    chosen: list[Ranked] = []
    for item_id in dict.fromkeys(item_ids):
        of_item = by_item[item_id]
        bans = sorted((r for r in of_item if r.memory.kind is Kind.BAN), key=lambda r: r.memory.seen_at, reverse=True)
        chosen += [r for r in of_item if r.memory.kind is Kind.TIP][:1]
        chosen += bans[: limits.bans_per_item]
    return chosen
