"""gRPC of a worker: tells what it is doing."""

from typing import Any

from anneal.worker.v1 import worker_pb2 as pb
from anneal.worker.v1 import worker_pb2_grpc
from anneal_runtime.errors import AnnealError
from anneal_skillkit.bench import Workbench

from anneal_worker.roles import ModelDoor


class WorkerApi(worker_pb2_grpc.WorkerServiceServicer):
    """Thin: a translation."""

    def __init__(self, bench: Workbench, door: ModelDoor) -> None:
        self._bench = bench
        self._door = door

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        under_way = [f"{kind} {cid}" for cid, kind in self._bench.under_way.items()]
        answer = pb.GetStatusResponse(commands_under_way=under_way, commands_done=self._bench.done)
        try:
            info = (await self._door.profiles())["default"]
        except AnnealError:
            return answer
        answer.model_profile, answer.model_may = info.name, info.may.value
        return answer
