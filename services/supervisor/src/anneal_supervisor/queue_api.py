"""gRPC of the queues: wire messages in and out, nothing else."""

from typing import Any

from anneal.supervisor.v1 import queues_pb2 as pb
from anneal.supervisor.v1 import queues_pb2_grpc
from anneal_contracts.work import WorkClass
from anneal_runtime.bus import QueueFigures

from anneal_supervisor.queues import Queues
from anneal_supervisor.store_parked import GivenUp, Parked

_LIST, _MAX_LIST = 50, 1000


class QueueApi(queues_pb2_grpc.QueueServiceServicer):
    """Thin: every method is a translation."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Any) -> pb.ListQueuesResponse:
        found = await self._queues.overview(min(request.limit or _LIST, _MAX_LIST))
        empty = QueueFigures()
        figures = {c: found.figures.get(c, empty) for c in WorkClass}
        return pb.ListQueuesResponse(
            queues=[
                pb.Queue(
                    work_class=c.value,
                    depth=f.depth,
                    in_flight=f.in_flight,
                    redelivered=f.redelivered,
                    idle=f.idle,
                    parked=found.counts.get(c.value, 0),
                )
                for c, f in figures.items()
            ],
            parked=[_message(p) for p in found.parked],
            problem=found.problem,
        )

    async def ParkMessage(self, request: pb.ParkMessageRequest, context: Any) -> pb.ParkMessageResponse:
        given = GivenUp(
            subject=request.subject,
            msg_id=request.msg_id,
            reason=request.reason,
            detail=request.detail,
            deliveries=request.deliveries,
            doer=request.doer,
        )
        parked_id, told = await self._queues.park(request.idempotency_key, given, request.data)
        return pb.ParkMessageResponse(id=parked_id, told=told)

    async def GetParked(self, request: pb.GetParkedRequest, context: Any) -> pb.GetParkedResponse:
        found, data, why_not = await self._queues.look(request.id)
        return pb.GetParkedResponse(message=_message(found), data=data, may_retry=not why_not, why_not=why_not)

    async def RetryParked(self, request: pb.RetryParkedRequest, context: Any) -> pb.RetryParkedResponse:
        return pb.RetryParkedResponse(message=_message(await self._queues.retry(request.idempotency_key, request.id)))

    async def DropParked(self, request: pb.DropParkedRequest, context: Any) -> pb.DropParkedResponse:
        return pb.DropParkedResponse(message=_message(await self._queues.drop(request.idempotency_key, request.id)))


def _message(p: Parked) -> pb.ParkedMessage:
    message = pb.ParkedMessage(
        id=p.id,
        work_class=p.work_class,
        subject=p.subject,
        msg_id=p.msg_id,
        run_id=p.run_id,
        command_id=p.command_id,
        reason=p.reason,
        detail=p.detail,
        deliveries=p.deliveries,
        doer=p.doer,
        state=p.state,
        size=p.size,
    )
    if p.parked_at is not None:
        message.parked_at.FromDatetime(p.parked_at)
    if p.settled_at is not None:
        message.settled_at.FromDatetime(p.settled_at)
    return message
