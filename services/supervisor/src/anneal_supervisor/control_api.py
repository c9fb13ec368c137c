"""gRPC of people's hand on a run: wire messages in and out, nothing else."""

from typing import Any

from anneal.supervisor.v1 import control_pb2 as pb
from anneal.supervisor.v1 import control_pb2_grpc as pb_grpc
from anneal_runtime.errors import InvalidArgument
from google.protobuf.timestamp_pb2 import Timestamp

from anneal_supervisor.control import Control, Question
from anneal_supervisor.forks import Forks, Wanted
from anneal_supervisor.peers import Peers
from anneal_supervisor.store import Store


class ControlApi(pb_grpc.ControlServiceServicer):
    """Thin: every method is a translation. store: where scripts are read for people."""

    def __init__(self, control: Control, forks: Forks, store: Store, peers: Peers) -> None:
        self._control = control
        self._forks = forks
        self._store = store
        self._peers = peers

    async def PauseRun(self, request: pb.PauseRunRequest, context: Any) -> pb.PauseRunResponse:
        return pb.PauseRunResponse(state=await self._control.pause(request.run_id, request.by, request.reason))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Any) -> pb.ResumeRunResponse:
        return pb.ResumeRunResponse(state=await self._control.resume(request.run_id, request.by))

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Any) -> pb.ListApprovalsResponse:
        found = [_approval(q) for q in await self._control.approvals(request.run_id)]
        if not request.run_id:
            # Each replica knows the questions of its own runs.
            for answer in await self._peers.asked(context, pb_grpc.ControlServiceStub, "ListApprovals", request):
                found += answer.approvals
            found.sort(key=lambda a: (a.asked_at.ToMilliseconds(), a.id))
        return pb.ListApprovalsResponse(approvals=found)

    async def GetApproval(self, request: pb.GetApprovalRequest, context: Any) -> pb.GetApprovalResponse:
        question = await self._control.approval(request.id)
        answer = pb.GetApprovalResponse(approval=_approval(question), item_title=question.item.detail.title)
        if (action := question.action) is not None:
            answer.action_kind, answer.source, answer.policy = action.kind, action.source.value, action.policy
            answer.content = (await self._store.get_blob(action.blob))[1].decode("utf-8", "replace")
        return answer

    async def AnswerApproval(self, request: pb.AnswerApprovalRequest, context: Any) -> pb.AnswerApprovalResponse:
        question = await self._control.answer(
            request.id, request.action_hash, granted=request.granted, by=request.by, reason=request.reason
        )
        return pb.AnswerApprovalResponse(approval=_approval(question))

    async def ReplayRun(self, request: pb.ReplayRunRequest, context: Any) -> pb.ReplayRunResponse:
        found = await self._control.replay(request.run_id)
        answer = pb.ReplayRunResponse(same=found.difference is None, events=found.state.seq, decisions=found.decisions)
        if (difference := found.difference) is not None:
            answer.seq, answer.reason, answer.diff = difference.seq, difference.reason, difference.diff
        return answer

    async def ForkRun(self, request: pb.ForkRunRequest, context: Any) -> pb.ForkRunResponse:
        if not request.idempotency_key:
            raise InvalidArgument("is required", field="idempotency_key")
        wanted = Wanted(
            run_id=request.run_id,
            seq=request.seq,
            by=request.by,
            model_profile=request.model_profile,
            model_may=request.model_may,
            bounds=dict(request.set),
        )
        asked = request.SerializeToString(deterministic=True)
        return pb.ForkRunResponse(run_id=await self._forks.fork(request.idempotency_key, asked, wanted))


def _approval(question: Question) -> pb.Approval:
    asked, spec = question.approval, question.state.spec
    assert spec is not None
    return pb.Approval(
        id=question.id,
        run_id=question.state.run_id,
        item_id=question.item.detail.id,
        attempt=asked.attempt,
        action_hash=asked.action_hash,
        title=asked.title,
        target=spec.target,
        skill=spec.skill,
        state=question.standing,
        by=asked.by,
        reason=asked.reason,
        asked_at=_stamp(asked.asked_at),
        expires_at=_stamp(asked.expires_at),
    )


def _stamp(at: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(int(at * 1000))
    return stamp
