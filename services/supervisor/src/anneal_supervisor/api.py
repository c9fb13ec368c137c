"""gRPC of the supervisor: wire messages in and out, nothing else."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from anneal.supervisor.v1 import supervisor_pb2 as pb
from anneal.supervisor.v1 import supervisor_pb2_grpc
from anneal_contracts.facts import DeferredItemOutcome
from anneal_contracts.work import Result
from anneal_runtime.clock import Clock
from anneal_runtime.errors import InvalidArgument
from pydantic import TypeAdapter, ValidationError

from anneal_supervisor.checks import checked
from anneal_supervisor.domain import Supervisor
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.view import event_message, run_message

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub
    from anneal.evaluator.v1.evaluator_pb2_grpc import EvaluatorServiceAsyncStub

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
_MAX_LIST = 500
_MAX_TEXT = 2000


class SupervisorApi(supervisor_pb2_grpc.SupervisorServiceServicer):
    """Thin: every method is a translation."""

    def __init__(
        self,
        domain: Supervisor,
        settings: SupervisorSettings,
        evaluator: "EvaluatorServiceAsyncStub",
        checkpoint: "CheckpointServiceAsyncStub",
        clock: Clock,
    ) -> None:
        self._domain = domain
        self._settings = settings
        self._evaluator = evaluator
        self._checkpoint = checkpoint
        self._clock = clock

    async def CreateRun(self, request: pb.CreateRunRequest, context: Any) -> pb.CreateRunResponse:
        if not request.idempotency_key:
            raise InvalidArgument("is required", field="idempotency_key")
        spec, limits, policy = await checked(request.spec, self._settings, self._evaluator, self._checkpoint)
        if request.spec.tailoring:
            blob = await self._domain.put_blob("", "application/xml", request.spec.tailoring)
            spec = spec.model_copy(update={"tailoring_blob": blob})
        wanted = request.spec.SerializeToString(deterministic=True)
        run_id = await self._domain.create(request.idempotency_key, wanted, spec, limits, policy)
        return pb.CreateRunResponse(run_id=run_id)

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        state = await self._domain.state(request.run_id)
        return pb.GetRunResponse(run=run_message(state, self._clock.now()))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        limit = min(request.limit or 50, _MAX_LIST)
        summaries = await self._domain.summaries(limit)
        return pb.ListRunsResponse(runs=[pb.Run.FromString(s) for s in summaries])

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        return pb.CancelRunResponse(state=await self._domain.cancel(request.run_id, request.reason))

    async def ReportResult(self, request: pb.ReportResultRequest, context: Any) -> pb.ReportResultResponse:
        try:
            result = _RESULT.validate_json(request.result_json)
        except ValidationError as e:
            raise InvalidArgument(f"is no result: {e.error_count()} errors", field="result_json") from e
        accepted = await self._domain.report(request.run_id, request.idempotency_key, result)
        return pb.ReportResultResponse(accepted=accepted)

    async def ReportProgress(self, request: pb.ReportProgressRequest, context: Any) -> pb.ReportProgressResponse:
        outcome = None
        if request.outcome_json:
            try:
                outcome = DeferredItemOutcome.model_validate_json(request.outcome_json)
            except ValidationError as e:
                raise InvalidArgument(f"is no outcome: {e.error_count()} errors", field="outcome_json") from e
        told = await self._domain.progress(request.run_id, request.command_id, request.text[:_MAX_TEXT], outcome)
        return pb.ReportProgressResponse(accepted=told is not None, settled=told or ())

    async def ReadEvents(self, request: pb.ReadEventsRequest, context: Any) -> AsyncIterator[pb.ReadEventsResponse]:
        async for event in self._domain.events(request.run_id, request.after_seq, follow=request.follow):
            yield pb.ReadEventsResponse(event=event_message(event))

    async def VerifyRun(self, request: pb.VerifyRunRequest, context: Any) -> pb.VerifyRunResponse:
        found = await self._domain.verify(request.run_id)
        return pb.VerifyRunResponse(
            ok=found.ok,
            events=found.events,
            first_bad_seq=found.first_bad,
            reason=found.reason,
            head_hash=found.head,
        )

    async def PutBlob(self, request: pb.PutBlobRequest, context: Any) -> pb.PutBlobResponse:
        sha = await self._domain.put_blob(request.idempotency_key, request.media_type, request.content)
        return pb.PutBlobResponse(sha256=sha)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.GetBlobResponse:
        media_type, content = await self._domain.get_blob(request.sha256)
        return pb.GetBlobResponse(media_type=media_type, content=content)
