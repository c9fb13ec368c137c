"""The gRPC face: turns messages into calls of the rules and back. Errors pass through to the runtime's table."""

from dataclasses import asdict

from anneal.memory.v1 import memory_pb2 as pb
from anneal.memory.v1.memory_pb2_grpc import MemoryServiceServicer

from anneal_memory.domain import Memories, Taught
from anneal_memory.lessons import ItemTime, Lesson
from anneal_memory.model import Conflict, Outcome, Ranked, Scope

SERVICE = pb.DESCRIPTOR.services_by_name["MemoryService"].full_name


class MemoryApi(MemoryServiceServicer):
    """anneal.memory.v1.MemoryService."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories

    async def Recall(self, request: pb.RecallRequest, context: object) -> pb.RecallResponse:
        scope = Scope(skill=request.skill, fingerprint=request.fingerprint)
        found = await self._memories.recall(scope, list(request.item_ids), list(request.categories))
        return pb.RecallResponse(
            tips=[_tip(r) for r in found.chosen],
            conflicts=[pb.Conflict(item_id=c.item_id, undone_by=c.undone_by) for c in found.conflicts],
            lessons=[pb.Lesson(**asdict(lesson)) for lesson in found.lessons],
            usual=[pb.UsualTime(item_id=i, seconds=s) for i, s in found.usual.items()],
        )

    async def Record(self, request: pb.RecordRequest, context: object) -> pb.RecordResponse:
        counts = await self._memories.record(
            request.idempotency_key,
            request.run_id,
            Scope(skill=request.skill, fingerprint=request.fingerprint),
            Taught(
                outcomes=[_outcome(o) for o in request.outcomes],
                conflicts=[Conflict(item_id=c.item_id, undone_by=tuple(c.undone_by)) for c in request.conflicts],
                lessons=[_lesson(x) for x in request.lessons],
                times=[ItemTime(item_id=t.item_id, category=t.category, seconds=t.seconds) for t in request.times],
            ),
        )
        return pb.RecordResponse(tips=counts.tips, bans=counts.bans)

    async def ListTips(self, request: pb.ListTipsRequest, context: object) -> pb.ListTipsResponse:
        listed = await self._memories.newest(request.skill, request.limit)
        return pb.ListTipsResponse(tips=[_tip(r) for r in listed])

    async def Forget(self, request: pb.ForgetRequest, context: object) -> pb.ForgetResponse:
        await self._memories.forget(request.idempotency_key, request.tip_id)
        return pb.ForgetResponse()


def _outcome(message: pb.Outcome) -> Outcome:
    return Outcome(
        item_id=message.item_id,
        action_hash=message.action_hash,
        action_kind=message.action_kind,
        action_title=message.action_title,
        content=message.content,
        origin=message.origin,
        worked=message.worked,
        mechanism=message.mechanism,
        tip_id=message.tip_id,
    )


def _lesson(message: pb.Lesson) -> Lesson:
    return Lesson(
        item_id=message.item_id,
        lesson=message.lesson,
        mechanism=message.mechanism,
        bans=tuple(message.bans),
        certainty=message.certainty,
    )


def _tip(ranked: Ranked) -> pb.Tip:
    memory = ranked.memory
    return pb.Tip(
        id=memory.id,
        skill=memory.skill,
        item_id=memory.item_id,
        fingerprint=memory.fingerprint,
        kind=memory.kind,
        action_hash=memory.action_hash,
        action_kind=memory.action_kind,
        action_title=memory.action_title,
        content=memory.content,
        origin=memory.origin,
        utility=ranked.utility,
        mechanism=memory.mechanism,
        run_id=memory.run_id,
        uses=memory.uses,
        successes=memory.successes,
    )
