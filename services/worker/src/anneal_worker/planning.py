"""The ladder of every item: what worked here before, then the vendor's fixes, then the skill's own.

A recalled script goes first: it is the only rung with evidence from this very kind of machine.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from anneal.memory.v1 import memory_pb2 as mem
from anneal_contracts.facts import Action, FixSource, ItemDetail
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


class Planner:
    """Makes the plan of a run."""

    def __init__(self, bench: Workbench, memory: "MemoryServiceAsyncStub", door: ModelDoor) -> None:
        self._bench = bench
        self._memory = memory
        self._door = door

    async def plan(self, command: MakePlan) -> Planned:
        """Ladders for all items of the command. Memory and model are optional: without them the plan is shorter."""
        ctx = await self._bench.context(command)
        tips, after = await self._recall(command)
        limit = asyncio.Semaphore(_ITEMS_AT_ONCE)

        async def one(item: ItemDetail) -> Ladder:
            async with limit:
                return await self._ladder(ctx, command.skill, item, tips.get(item.id, ()))

        ladders = await asyncio.gather(*(one(i) for i in command.items))
        may = await self._model_may(command.model_profile)
        return Planned(command_id=command.command_id, ladders=tuple(ladders), after=after, model_may=may)

    async def _ladder(self, ctx: Context, skill: str, item: ItemDetail, tips: Sequence[mem.Tip]) -> Ladder:
        static = await self._bench.skill(skill).runtime.executor.ladder(ctx, item)
        known = {a.hash: a for a in static}
        tips_here = [t for t in tips if t.kind == "tip" and t.action_kind in ("bash", "ansible")]
        recalled = [_recalled(t, known.get(t.action_hash)) for t in tips_here]
        bans = {t.action_hash: t.mechanism or f"failed in {t.run_id}" for t in tips if t.kind == "ban"}
        candidates = await gated(self._bench, [*recalled, *static], bans)
        return Ladder(item_id=item.id, candidates=tuple(candidates))

    async def _recall(self, command: MakePlan) -> tuple[Mapping[str, list[mem.Tip]], dict[str, tuple[str, ...]]]:
        """Tips and bans by item, and what undid an item; none where memory is not asked or does not answer."""
        if not command.use_memory:
            return {}, {}
        request = mem.RecallRequest(
            skill=command.skill,
            fingerprint=command.fingerprint,
            item_ids=[i.id for i in command.items],
            role="worker",
        )
        try:
            answer = await self._memory.Recall(request)
        except AnnealError as e:
            log.warning("planning without memory", extra={"reason": e.reason, "detail": e.message})
            return {}, {}
        found: defaultdict[str, list[mem.Tip]] = defaultdict(list)
        for tip in answer.tips:
            found[tip.item_id].append(tip)
        return found, {c.item_id: tuple(c.undone_by) for c in answer.conflicts}

    async def _model_may(self, profile: str) -> Literal["author", "choose", "none"]:
        try:
            info = (await self._door.profiles()).get(profile or "default")
        except AnnealError as e:
            log.warning("planning without a model", extra={"reason": e.reason, "detail": e.message})
            return "none"
        return info.may.value if info is not None and not info.problem else "none"


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
