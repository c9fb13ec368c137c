"""The four things memory does, over a store. Writes are atomic and happen once a key."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from anneal_contracts.canonical import canonical_json
from anneal_runtime.errors import InvalidArgument, NotFound
from anneal_runtime.faults import declare, faultpoint
from anneal_runtime.telemetry import tracer

from anneal_memory import rules
from anneal_memory.checks import (
    check_conflict,
    check_item_id,
    check_key,
    check_run_id,
    check_scope,
    check_skill,
    checked_outcome,
)
from anneal_memory.lessons import ItemTime, Lesson, check_time, checked_lesson
from anneal_memory.model import Change, Conflict, Kind, Memory, Outcome, Ranked, Scope
from anneal_memory.rules import Learnt, RecallLimits
from anneal_memory.settings import MemorySettings
from anneal_memory.store import Store, Tx

_tracer = tracer(__name__)

BEFORE_COMMIT = declare("memory.before_commit")
AFTER_COMMIT = declare("memory.after_commit")

_LIST_DEFAULT = 100
_LIST_MAX = 1000


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many tips and bans a Record wrote."""

    tips: int
    bans: int


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a run taught."""

    outcomes: Sequence[Outcome]
    conflicts: Sequence[Conflict] = ()
    lessons: Sequence[Lesson] = ()
    times: Sequence[ItemTime] = ()


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """What a recall gives: tips and bans in the items' order, what undid items, lessons, what items usually take."""

    chosen: Sequence[Ranked]
    conflicts: Sequence[Conflict]
    lessons: Sequence[Lesson]
    usual: Mapping[str, float]


class Memories:
    """Records, recalls, lists and forgets."""

    def __init__(self, store: Store, settings: MemorySettings) -> None:
        self._store = store
        self._settings = settings
        self._limits = RecallLimits(
            half_life_days=settings.half_life_days,
            tip_ttl_days=settings.tip_ttl_days,
            ban_ttl_days=settings.ban_ttl_days,
            bans_per_item=settings.bans_per_item,
        )

    async def record(self, key: str, run_id: str, scope: Scope, taught: Taught) -> Counts:
        """Writes what a run taught, all of it or nothing. Raises InvalidArgument naming the field."""
        check_key(key)
        check_run_id(run_id)
        check_scope(scope)
        checked = self._checked(taught.outcomes)
        for n, conflict in enumerate(taught.conflicts):
            check_conflict(conflict, f"conflicts[{n}]")
        for n, time in enumerate(taught.times):
            check_time(time, f"times[{n}]")
        lessons = [checked_lesson(scope, lesson, f"lessons[{n}]") for n, lesson in enumerate(taught.lessons)]
        more: dict[str, Sequence[Conflict | Lesson | ItemTime]] = {
            "conflicts": taught.conflicts,
            "lessons": lessons,
            "times": taught.times,
        }
        for name, entries in more.items():
            self._check_size(len(entries), name)
        request = canonical_json(
            {
                "run_id": run_id,
                "scope": asdict(scope),
                "outcomes": [asdict(o) for o in checked],
                # Left out where there are none: a key of an earlier version is still the same request.
                **{name: [asdict(entry) for entry in entries] for name, entries in more.items() if entries},
            }
        )
        with _tracer.start_as_current_span("memory.record", attributes={"anneal.outcomes": len(checked)}):
            async with self._store.transaction() as tx:

                async def write() -> bytes:
                    counts = await self._write(tx, run_id, scope, checked)
                    await tx.save_conflicts(scope, run_id, taught.conflicts)
                    await tx.save_lessons(scope, run_id, lessons)
                    await tx.save_times(scope.skill, run_id, taught.times)
                    return canonical_json(asdict(counts))

                answer = json.loads(await tx.once(f"Record:{key}", request, write))
                await faultpoint(BEFORE_COMMIT)
        await faultpoint(AFTER_COMMIT)
        return Counts(**answer)

    async def recall(self, scope: Scope, item_ids: Sequence[str], categories: Sequence[str] = ()) -> Recalled:
        """The best tip, the newest bans and lessons of each item, in the items' order, and what undid them; for exactly
        this fingerprint. What items usually take is of all machines. categories: of the items, in their order.
        """
        check_scope(scope)
        self._check_size(len(item_ids), "item_ids")
        for n, item_id in enumerate(item_ids):
            check_item_id(item_id, f"item_ids[{n}]")
        if categories and len(categories) != len(item_ids):
            raise InvalidArgument("categories has one entry for each of item_ids, or none", field="categories")
        with _tracer.start_as_current_span("memory.recall", attributes={"anneal.items": len(item_ids)}) as span:
            async with self._store.transaction() as tx:
                found = await tx.recallable(scope, item_ids)
                now = await tx.now()
                chosen = rules.select(found, item_ids, now, self._limits)
                conflicts = await tx.conflicts(scope, item_ids, now - timedelta(days=self._limits.tip_ttl_days))
                lessons = await tx.lessons(
                    scope,
                    item_ids,
                    now - timedelta(days=self._limits.ban_ttl_days),
                    self._settings.lessons_per_item,
                )
                kinds = dict(zip(item_ids, categories or [""] * len(item_ids), strict=True))
                usual = await tx.usual_times(scope.skill, kinds)
            span.set_attribute("anneal.memories", len(chosen) + len(lessons))
        return Recalled(chosen=chosen, conflicts=conflicts, lessons=lessons, usual=usual)

    async def newest(self, skill: str, limit: int) -> list[Ranked]:
        """Memories in use, last seen first. limit 0: 100; at most 1000."""
        if skill:
            check_skill(skill)
        if not 0 <= limit <= _LIST_MAX:
            raise InvalidArgument(f"limit is 1 to {_LIST_MAX}, or 0 for {_LIST_DEFAULT}", field="limit")
        async with self._store.transaction() as tx:
            now = await tx.now()
            found = await tx.newest(skill, limit or _LIST_DEFAULT)
        return [Ranked(memory=m, utility=self._utility(m, now)) for m in found]

    async def forget(self, key: str, id_: str) -> None:
        """Takes a memory out of use for good: a person's word outranks evidence. It stays for the audit."""
        check_key(key)
        async with self._store.transaction() as tx:

            async def forget() -> bytes:
                memory = await tx.memory(id_)
                if memory is None and await tx.forget_lesson(id_):
                    return b""
                if memory is None:
                    raise NotFound(f"no tip, ban or lesson has the id {id_[:80]!r}", field="tip_id")
                await tx.lock_scope(Scope(skill=memory.skill, fingerprint=memory.fingerprint))
                current = await tx.memory(id_) or memory
                if not current.forgotten:
                    await tx.save(replace(current, forgotten=True))
                    await tx.note(current, Change.FORGOTTEN, "")
                return b""

            await tx.once(f"Forget:{key}", canonical_json({"tip_id": id_}), forget)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, tx: Tx, run_id: str, scope: Scope, outcomes: Sequence[Outcome]) -> Counts:
        await tx.lock_scope(scope)
        now = await tx.now()
        known = {m.id: m for m in await tx.memories(scope, sorted({o.item_id for o in outcomes}))}
        touched: dict[str, Kind] = {}
        for n, outcome in enumerate(outcomes):
            for learnt in self._learn(known, scope, outcome, run_id, now, f"outcomes[{n}]"):
                known[learnt.memory.id] = learnt.memory
                touched[learnt.memory.id] = learnt.memory.kind
                await tx.save(learnt.memory)
                await tx.note(learnt.memory, learnt.change, run_id)
        kinds = list(touched.values())
        return Counts(tips=kinds.count(Kind.TIP), bans=kinds.count(Kind.BAN))

    def _learn(
        self, known: dict[str, Memory], scope: Scope, outcome: Outcome, run_id: str, now: datetime, at: str
    ) -> list[Learnt]:
        """What one outcome changes: the memory whose advice was followed, and that of the action itself."""
        own_id = rules.memory_id(scope, outcome.item_id, outcome.action_hash)
        learnt: list[Learnt] = []
        if outcome.tip_id:
            advice = known.get(outcome.tip_id)
            if advice is None or advice.item_id != outcome.item_id:
                raise InvalidArgument(
                    f"{at}.tip_id {outcome.tip_id[:80]!r} is no memory of this item, skill and fingerprint",
                    field=f"{at}.tip_id",
                )
            learnt.append(rules.credit(advice, outcome.worked, run_id, now, ban_below=self._settings.ban_below))
        if own_id != outcome.tip_id:
            own = known.get(own_id)
            if own is None:
                learnt.append(rules.first_seen(scope, outcome, run_id, now))
            elif (again := rules.seen_again(own, outcome, run_id, now)) is not None:
                learnt.append(again)
        # What a person has forgotten stays forgotten, whatever is seen later.
        return [one for one in learnt if not one.memory.forgotten]

    # --- bounds ------------------------------------------------------------------------------------------------------

    def _checked(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        self._check_size(len(outcomes), "outcomes")
        return [
            checked_outcome(
                outcome,
                f"outcomes[{n}]",
                max_content_bytes=self._settings.max_content_bytes,
                max_mechanism_chars=self._settings.max_mechanism_chars,
            )
            for n, outcome in enumerate(outcomes)
        ]

    def _check_size(self, size: int, field: str) -> None:
        if size > self._settings.max_outcomes:
            raise InvalidArgument(f"{field} has at most {self._settings.max_outcomes} entries, not {size}", field=field)

    def _utility(self, memory: Memory, now: datetime) -> float:
        age_s = (now - memory.seen_at).total_seconds()
        return rules.utility(memory.uses, memory.successes, age_s, self._settings.half_life_days)
