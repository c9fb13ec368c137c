"""A gateway that knows sample runs and nothing else: what the command line is tried against, over real gRPC."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.common.v1.common_pb2 import Event
from anneal.evaluator.v1 import evaluator_pb2 as ev
from anneal.gateway.v1 import gateway_pb2 as gw
from anneal.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from anneal.supervisor.v1 import control_pb2 as ct
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal.supervisor.v1 import supervisor_pb2 as sv
from anneal_runtime import rpc_wire
from anneal_runtime.errors import AnnealError, FailedPrecondition, NotFound, Unauthenticated

TOKEN = "a-token-of-the-fake-gateway"
ENDED = ("finished", "cancelled", "failed")


class FakeGateway(GatewayServiceServicer):
    """Holds runs, targets and blobs; tests change them at will. error: raised by every call until it is taken away."""

    def __init__(self) -> None:
        self.runs: dict[str, sv.Run] = {}
        self.targets: dict[str, cp.Target] = {}
        self.blobs: dict[str, bytes] = {}
        self.reports: dict[str, tuple[bytes, str]] = {}
        self.created: list[sv.RunSpec] = []
        self.cancelled: list[tuple[str, str]] = []
        self.skills: list[ev.Skill] = []
        self.checks: list[ev.Check] = []
        self.verification = sv.VerifyRunResponse(ok=True, events=3, head_hash="ab" * 32)
        self.queues = qu.ListQueuesResponse()
        self.controlled: list[tuple[str, str, str, str]] = []
        self.approvals: dict[str, ct.Approval] = {}
        self.forked: list[ct.ForkRunRequest] = []
        self.replayed = ct.ReplayRunResponse(same=True, events=9, decisions=5)
        # Parked messages by id, as GetParked gives them.
        self.parked: dict[str, qu.GetParkedResponse] = {}
        # Effects of each run.
        self.effects: dict[str, list[cp.Effect]] = {}
        self.error: AnnealError | None = None
        self.watched_after: list[int] = []
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def put(self, run: sv.Run, event: Event | None = None) -> None:
        """Sets a run and, as the supervisor would, tells of it by an event."""
        with self._changed:
            self.runs[run.run_id] = run
            if event is not None:
                event.seq = len(self._events) + 1
                self._events.append(event)
            self._changed.notify_all()

    def _check(self, context: grpc.ServicerContext) -> None:
        known = dict(context.invocation_metadata()).get("authorization")
        error = Unauthenticated("the call carries no valid token") if known != f"Bearer {TOKEN}" else self.error
        if error is not None:
            self._abort(context, error)

    @staticmethod
    def _abort(context: grpc.ServicerContext, error: AnnealError) -> None:
        context.set_trailing_metadata(((rpc_wire.ERROR_KEY, rpc_wire.encode_error(error)),))
        context.abort(error.grpc_status, error.message)

    def CreateRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.created.append(request.spec)
        run_id = next(iter(self.runs), "01jrun")
        return sv.CreateRunResponse(run_id=run_id)

    def GetRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        if request.run_id not in self.runs:
            self._abort(context, NotFound(f"there is no run {request.run_id}", field="run_id"))
        return sv.GetRunResponse(run=self.runs[request.run_id])

    def ListRuns(self, request: Any, context: Any) -> Any:
        self._check(context)
        newest = sorted(self.runs.values(), key=lambda run: run.created_at.seconds, reverse=True)
        return sv.ListRunsResponse(runs=newest[: request.limit])

    def CancelRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.cancelled.append((request.run_id, request.reason))
        return sv.CancelRunResponse(state="closing")

    def WatchRun(self, request: Any, context: Any) -> Iterator[Any]:
        self._check(context)
        self.watched_after.append(request.after_seq)
        sent = request.after_seq
        while context.is_active():
            with self._changed:
                fresh = self._events[sent:]
                ended = self.runs[request.run_id].state in ENDED
                if not fresh and not ended:
                    self._changed.wait(0.05)
            for event in fresh:
                sent = event.seq
                yield sv.ReadEventsResponse(event=event)
            if ended:
                return

    def VerifyRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        return self.verification

    def GetBlob(self, request: Any, context: Any) -> Any:
        self._check(context)
        if request.sha256 not in self.blobs:
            self._abort(context, NotFound("there is no such blob", field="sha256"))
        return sv.GetBlobResponse(content=self.blobs[request.sha256])

    def GetReport(self, request: Any, context: Any) -> Iterator[Any]:
        self._check(context)
        if request.format not in self.reports:
            self._abort(context, NotFound(f"there is no report {request.format}", field="format"))
        content, media_type = self.reports[request.format]
        half = len(content) // 2
        yield gw.GetReportResponse(chunk=content[:half], media_type=media_type)
        yield gw.GetReportResponse(chunk=content[half:])

    def AddTarget(self, request: Any, context: Any) -> Any:
        self._check(context)
        added = cp.Target()
        added.CopyFrom(request.target)
        added.can_snapshot = added.driver == "nspawn"
        self.targets[added.name] = added
        return cp.AddTargetResponse(target=added)

    def ListTargets(self, request: Any, context: Any) -> Any:
        self._check(context)
        return cp.ListTargetsResponse(targets=list(self.targets.values()))

    def ListEffects(self, request: Any, context: Any) -> Any:
        self._check(context)
        return cp.ListEffectsResponse(effects=self.effects.get(request.run_id, []))

    def RemoveTarget(self, request: Any, context: Any) -> Any:
        self._check(context)
        if self.targets.pop(request.name, None) is None:
            self._abort(context, NotFound(f"there is no target {request.name}", field="target"))
        return cp.RemoveTargetResponse()

    def CheckTarget(self, request: Any, context: Any) -> Any:
        self._check(context)
        return ev.CheckTargetResponse(ok=all(check.ok for check in self.checks), checks=self.checks)

    def ListSkills(self, request: Any, context: Any) -> Any:
        self._check(context)
        return ev.ListSkillsResponse(skills=self.skills)

    def RecordBaseline(self, request: Any, context: Any) -> Any:
        self._check(context)
        return ev.RecordBaselineResponse()

    def PauseRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.controlled.append(("pause", request.run_id, request.by, request.reason))
        return ct.PauseRunResponse(state="paused")

    def ResumeRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.controlled.append(("resume", request.run_id, request.by, ""))
        return ct.ResumeRunResponse(state="executing")

    def ListApprovals(self, request: Any, context: Any) -> Any:
        self._check(context)
        found = [a for a in self.approvals.values() if request.run_id in ("", a.run_id)]
        return ct.ListApprovalsResponse(approvals=found)

    def GetApproval(self, request: Any, context: Any) -> Any:
        self._check(context)
        if request.id not in self.approvals:
            hint = {"hint": "anneal approvals list"}
            self._abort(context, NotFound(f"there is no approval {request.id!r}", field="id", details=hint))
        return ct.GetApprovalResponse(
            approval=self.approvals[request.id],
            item_title="A rule",
            action_kind="bash",
            content="#!/bin/bash\nmkfs /dev/sdx\n",
            source="vendor",
        )

    def AnswerApproval(self, request: Any, context: Any) -> Any:
        self._check(context)
        asked = self.approvals[request.id]
        if asked.state != "asked":
            self._abort(context, FailedPrecondition(f"too late: it is {asked.state} by {asked.by}", field="id"))
        asked.state, asked.by = "granted" if request.granted else "denied", request.by
        return ct.AnswerApprovalResponse(approval=asked)

    def ReplayRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        return self.replayed

    def ForkRun(self, request: Any, context: Any) -> Any:
        self._check(context)
        self.forked.append(request)
        return ct.ForkRunResponse(run_id="run-fork")

    def ListQueues(self, request: Any, context: Any) -> Any:
        self._check(context)
        found = qu.ListQueuesResponse()
        found.CopyFrom(self.queues)
        waiting = [one.message for one in self.parked.values() if one.message.state == "parked"]
        found.parked.extend(waiting[: request.limit])
        return found

    def _parked(self, parked_id: str, context: Any) -> Any:
        if parked_id not in self.parked:
            hint = {"hint": "anneal queue list lists them"}
            self._abort(context, NotFound(f"no parked message {parked_id}", field="id", details=hint))
        return self.parked[parked_id]

    def GetParked(self, request: Any, context: Any) -> Any:
        self._check(context)
        return self._parked(request.id, context)

    def RetryParked(self, request: Any, context: Any) -> Any:
        self._check(context)
        found = self._parked(request.id, context)
        if not found.may_retry:
            hint = {"hint": f"anneal queue drop {request.id}"}
            self._abort(context, FailedPrecondition(found.why_not, field="id", details=hint))
        found.message.state = "retried"
        return qu.RetryParkedResponse(message=found.message)

    def DropParked(self, request: Any, context: Any) -> Any:
        self._check(context)
        found = self._parked(request.id, context)
        found.message.state = "dropped"
        return qu.DropParkedResponse(message=found.message)

    def ListUpstreams(self, request: Any, context: Any) -> Any:
        self._check(context)
        upstream = gw.Upstream(profile="default", base_url="http://x/v1", model="m", may="none", circuit="closed")
        return gw.ListUpstreamsResponse(upstreams=[upstream])


@contextmanager
def serving(fake: FakeGateway, port: int = 0) -> Iterator[str]:
    """Serves the fake on loopback; gives its address. Ends at once, open streams or not."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    add_GatewayServiceServicer_to_server(fake, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(grace=0).wait()
