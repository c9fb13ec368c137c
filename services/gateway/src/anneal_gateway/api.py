"""gRPC of the gateway: each method forwards to the service that owns the facts."""

from collections.abc import AsyncIterator
from typing import Any

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.common.v1.common_pb2 import FieldViolation
from anneal.evaluator.v1 import evaluator_pb2 as ev
from anneal.gateway.v1 import gateway_pb2 as gw
from anneal.gateway.v1 import gateway_pb2_grpc
from anneal.supervisor.v1 import control_pb2 as ct
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal.supervisor.v1 import supervisor_pb2 as sv
from anneal_contracts.roles import ModelRole

from anneal_gateway.clients import Clients
from anneal_gateway.door import Door
from anneal_gateway.report.reports import Reports

SERVICE = "anneal.gateway.v1.GatewayService"
# Pieces of a report on the wire.
CHUNK_BYTES = 1 << 20


class GatewayApi(gateway_pb2_grpc.GatewayServiceServicer):
    """Thin: nothing is decided here."""

    def __init__(self, clients: Clients, reports: Reports, door: Door) -> None:
        self._clients = clients
        self._reports = reports
        self._door = door

    async def CreateRun(self, request: sv.CreateRunRequest, context: Any) -> sv.CreateRunResponse:
        # Checked here, because only the gateway knows the profiles: a run must not find out on its first model call.
        if request.spec.model_profile:
            self._door.profiles.require(request.spec.model_profile, field="spec.model_profile")
        return await self._clients.supervisor.CreateRun(request)

    async def GetRun(self, request: sv.GetRunRequest, context: Any) -> sv.GetRunResponse:
        run, _ = await self._reports.run(request.run_id)
        return sv.GetRunResponse(run=run)

    async def ListRuns(self, request: sv.ListRunsRequest, context: Any) -> sv.ListRunsResponse:
        return await self._clients.supervisor.ListRuns(request)

    async def CancelRun(self, request: sv.CancelRunRequest, context: Any) -> sv.CancelRunResponse:
        return await self._clients.supervisor.CancelRun(request)

    async def WatchRun(self, request: sv.ReadEventsRequest, context: Any) -> AsyncIterator[sv.ReadEventsResponse]:
        async for answer in self._clients.supervisor.ReadEvents(request):
            yield answer

    async def VerifyRun(self, request: sv.VerifyRunRequest, context: Any) -> sv.VerifyRunResponse:
        return await self._clients.supervisor.VerifyRun(request)

    async def GetBlob(self, request: sv.GetBlobRequest, context: Any) -> sv.GetBlobResponse:
        return await self._clients.supervisor.GetBlob(request)

    async def GetReport(self, request: gw.GetReportRequest, context: Any) -> AsyncIterator[gw.GetReportResponse]:
        content, media_type = await self._reports.render(request.run_id, request.format)
        yield gw.GetReportResponse(chunk=content[:CHUNK_BYTES], media_type=media_type)
        for start in range(CHUNK_BYTES, len(content), CHUNK_BYTES):
            yield gw.GetReportResponse(chunk=content[start : start + CHUNK_BYTES])

    async def AddTarget(self, request: cp.AddTargetRequest, context: Any) -> cp.AddTargetResponse:
        return await self._clients.checkpoint.AddTarget(request)

    async def ListTargets(self, request: cp.ListTargetsRequest, context: Any) -> cp.ListTargetsResponse:
        return await self._clients.checkpoint.ListTargets(request)

    async def RemoveTarget(self, request: cp.RemoveTargetRequest, context: Any) -> cp.RemoveTargetResponse:
        return await self._clients.checkpoint.RemoveTarget(request)

    async def ListEffects(self, request: cp.ListEffectsRequest, context: Any) -> cp.ListEffectsResponse:
        return await self._clients.checkpoint.ListEffects(request)

    async def CheckTarget(self, request: ev.CheckTargetRequest, context: Any) -> ev.CheckTargetResponse:
        return await self._clients.evaluator.CheckTarget(request)

    async def ListSkills(self, request: ev.ListSkillsRequest, context: Any) -> ev.ListSkillsResponse:
        return await self._clients.evaluator.ListSkills(request)

    async def RecordBaseline(self, request: ev.RecordBaselineRequest, context: Any) -> ev.RecordBaselineResponse:
        return await self._clients.evaluator.RecordBaseline(request)

    async def PauseRun(self, request: ct.PauseRunRequest, context: Any) -> ct.PauseRunResponse:
        return await self._clients.control.PauseRun(request)

    async def ResumeRun(self, request: ct.ResumeRunRequest, context: Any) -> ct.ResumeRunResponse:
        return await self._clients.control.ResumeRun(request)

    async def ListApprovals(self, request: ct.ListApprovalsRequest, context: Any) -> ct.ListApprovalsResponse:
        return await self._clients.control.ListApprovals(request)

    async def GetApproval(self, request: ct.GetApprovalRequest, context: Any) -> ct.GetApprovalResponse:
        return await self._clients.control.GetApproval(request)

    async def AnswerApproval(self, request: ct.AnswerApprovalRequest, context: Any) -> ct.AnswerApprovalResponse:
        return await self._clients.control.AnswerApproval(request)

    async def ReplayRun(self, request: ct.ReplayRunRequest, context: Any) -> ct.ReplayRunResponse:
        return await self._clients.control.ReplayRun(request, timeout=120)

    async def ForkRun(self, request: ct.ForkRunRequest, context: Any) -> ct.ForkRunResponse:
        # Whoever asks does not say what a model may do: the profile does.
        request.model_may = ""
        if request.model_profile:
            profile = self._door.profiles.require(request.model_profile, field="model_profile")
            usable = not self._door.profiles.problem(request.model_profile)
            request.model_may = profile.may.value if usable else "none"
        return await self._clients.control.ForkRun(request, timeout=120)

    async def ListQueues(self, request: qu.ListQueuesRequest, context: Any) -> qu.ListQueuesResponse:
        return await self._clients.queues.ListQueues(request)

    async def GetParked(self, request: qu.GetParkedRequest, context: Any) -> qu.GetParkedResponse:
        return await self._clients.queues.GetParked(request)

    async def RetryParked(self, request: qu.RetryParkedRequest, context: Any) -> qu.RetryParkedResponse:
        return await self._clients.queues.RetryParked(request)

    async def DropParked(self, request: qu.DropParkedRequest, context: Any) -> qu.DropParkedResponse:
        return await self._clients.queues.DropParked(request)

    async def ListUpstreams(self, request: gw.ListUpstreamsRequest, context: Any) -> gw.ListUpstreamsResponse:
        return gw.ListUpstreamsResponse(upstreams=[self._upstream(name) for name, _ in self._door.profiles.items()])

    def _upstream(self, name: str) -> gw.Upstream:
        profile, problem = self._door.profiles.get(name), self._door.profiles.problem(name)
        return gw.Upstream(
            profile=name,
            base_url=profile.base_url,
            model=profile.model_of(ModelRole.WORKER),
            may=profile.may.value,
            circuit=self._door.circuit(profile),
            problem=FieldViolation(field="api_key_env", description=problem) if problem else None,
        )
