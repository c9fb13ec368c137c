"""The ladder of every item: what worked here before, then the vendor's fixes, then the skill's own.

A recalled script goes first: it is the only rung with evidence from this very kind of machine.
"""

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from anneal.memory.v1 import memory_pb2 as mem
from anneal_contracts.facts import Action, FixSource, ItemDetail
from anneal_contracts.turns import Recollection
from anneal_contracts.work import Ladder, MakePlan, Planned
from anneal_runtime.errors import AnnealError
from anneal_skillkit.bench import Workbench
from anneal_skillkit.interfaces import Context

from anneal_worker.gate import gated
from anneal_worker.roles import ModelDoor

if TYPE_CHECKING:
    from anneal.memory.v1.memory_pb2_grpc import MemoryServiceAsyncStub

log = logging.getLogger(__name__)

_ITEMS_AT_ONCE = 8


class _Memory:
    """What memory gave, by item."""

    def __init__(self, answer: mem.RecallResponse) -> None:
        self.tips: defaultdict[str, list[mem.Tip]] = defaultdict(list)
        self.lessons: defaultdict[str, list[mem.Lesson]] = defaultdict(list)
        for tip in answer.tips:
            self.tips[tip.item_id].append(tip)
        for lesson in answer.lessons:
            self.lessons[lesson.item_id].append(lesson)
        self.usual = {u.item_id: u.seconds for u in answer.usual}
        self.after = {c.item_id: tuple(c.undone_by) for c in answer.conflicts}


class Planner:
    """Makes the plan of a run."""

    def __init__(self, bench: Workbench, memory: "MemoryServiceAsyncStub", door: ModelDoor) -> None:
        self._bench = bench
        self._memory = memory
        self._door = door

    async def plan(self, command: MakePlan) -> Planned:
        """Ladders for all items of the command. Memory and model are optional: without them the plan is shorter."""
        ctx = await self._bench.context(command)
        memory = await self._recall(command)
        limit = asyncio.Semaphore(_ITEMS_AT_ONCE)

        async def one(item: ItemDetail) -> Ladder:
            async with limit:
                return await self._ladder(ctx, command.skill, item, memory)

        ladders = await asyncio.gather(*(one(i) for i in command.items))
        may = await self._model_may(command.model_profile)
        return Planned(command_id=command.command_id, ladders=tuple(ladders), after=memory.after, model_may=may)

    async def _ladder(self, ctx: Context, skill: str, item: ItemDetail, memory: _Memory) -> Ladder:
        tips = memory.tips[item.id]
        static = await self._bench.skill(skill).runtime.executor.ladder(ctx, item)
        known = {a.hash: a for a in static}
        tips_here = [t for t in tips if t.kind == "tip" and t.action_kind in ("bash", "ansible")]
        recalled = [_recalled(t, known.get(t.action_hash)) for t in tips_here]
        bans = {t.action_hash: t.mechanism or f"failed in {t.run_id}" for t in tips if t.kind == "ban"}
        candidates = await gated(self._bench, [*recalled, *static], bans)
        return Ladder(
            item_id=item.id,
            candidates=tuple(candidates),
            recalled=(*map(_tip_recalled, tips), *map(_lesson_recalled, memory.lessons[item.id])),
            usual_s=memory.usual.get(item.id, 0.0),
        )

    async def _recall(self, command: MakePlan) -> _Memory:
        """What memory knows of these items; nothing where it is not asked or does not answer."""
        if not command.use_memory:
            return _Memory(mem.RecallResponse())
        request = mem.RecallRequest(
            skill=command.skill,
            fingerprint=command.fingerprint,
            item_ids=[i.id for i in command.items],
            categories=[i.category for i in command.items],
            role="worker",
        )
        try:
            return _Memory(await self._memory.Recall(request))
        except AnnealError as e:
            log.warning("planning without memory", extra={"reason": e.reason, "detail": e.message})
            return _Memory(mem.RecallResponse())

    async def _model_may(self, profile: str) -> Literal["author", "choose", "none"]:
        try:
            info = (await self._door.profiles()).get(profile or "default")
        except AnnealError as e:
            log.warning("planning without a model", extra={"reason": e.reason, "detail": e.message})
            return "none"
        return info.may.value if info is not None and not info.problem else "none"


def _tip_recalled(tip: mem.Tip) -> Recollection:
    kind: Literal["tip", "ban"] = "tip" if tip.kind == "tip" else "ban"
    text = f"{tip.action_title}: {tip.mechanism}" if tip.mechanism else tip.action_title
    return Recollection(id=tip.id, kind=kind, text=text[:600], run_id=tip.run_id, utility=round(tip.utility, 4))


def _lesson_recalled(x: mem.Lesson) -> Recollection:
    bans = "".join(f"\nDo not: {ban}" for ban in x.bans)
    text = f"{x.lesson}\nCause ({x.certainty} certainty): {x.mechanism}{bans}"
    return Recollection(id=x.id, kind="lesson", text=text[:1500], run_id=x.run_id)


def _recalled(tip: mem.Tip, known: Action | None) -> Action:
    """A script that worked on this kind of machine; what the skill says of the same script today still holds."""
    origin = {"source": FixSource.RECALLED, "origin": tip.origin, "tip_id": tip.id}
    if known is not None:
        return known.model_copy(update=origin)
    return Action(
        kind="ansible" if tip.action_kind == "ansible" else "bash",
        title=tip.action_title,
        content=tip.content,
        **origin,
    )
