"""A real gateway on a real Postgres, with a scripted model server and stand-ins for the services behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1 import checkpoint_pb2_grpc as cp_grpc
from anneal.common.v1.common_pb2 import Event, ScoreCounts
from anneal.evaluator.v1 import evaluator_pb2 as ev
from anneal.evaluator.v1 import evaluator_pb2_grpc as ev_grpc
from anneal.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from anneal.supervisor.v1 import control_pb2 as ct
from anneal.supervisor.v1 import control_pb2_grpc as ct_grpc
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal.supervisor.v1 import queues_pb2_grpc as qu_grpc
from anneal.supervisor.v1 import supervisor_pb2 as sv
from anneal.supervisor.v1 import supervisor_pb2_grpc as sv_grpc
from anneal_contracts.canonical import canonical_json
from anneal_core.chain import link
from anneal_gateway.app import GatewayApp
from anneal_gateway.settings import GatewaySettings
from anneal_runtime.errors import FailedPrecondition, NotFound, Unavailable
from anneal_runtime.rpc import channel, serve
from anneal_runtime.settings import load

from tests.support.model_server import ModelServer
from tests.support.sample_run import BLOBS, sample_run


@dataclass
class Behind(
    sv_grpc.SupervisorServiceServicer,
    qu_grpc.QueueServiceServicer,
    ct_grpc.ControlServiceServicer,
    ev_grpc.EvaluatorServiceServicer,
    cp_grpc.CheckpointServiceServicer,
):
    """Supervisor, evaluator and checkpoint in one, knowing one run. calls: the requests they got."""

    run: sv.Run = field(default_factory=sample_run)
    calls: list[Any] = field(default_factory=list)
    evaluator_down: bool = False
    approvals: dict[str, ct.Approval] = field(default_factory=dict)

    async def CreateRun(self, request: sv.CreateRunRequest, context: Any) -> sv.CreateRunResponse:
        self.calls.append(request)
        return sv.CreateRunResponse(run_id=self.run.run_id)

    async def GetRun(self, request: sv.GetRunRequest, context: Any) -> sv.GetRunResponse:
        if request.run_id != self.run.run_id:
            raise NotFound("there is no such run", field="run_id")
        run = sv.Run()
        run.CopyFrom(self.run)
        run.score.ClearField("baseline")
        return sv.GetRunResponse(run=run)

    async def ReadEvents(self, request: sv.ReadEventsRequest, context: Any) -> AsyncIterator[sv.ReadEventsResponse]:
        prev = "0" * 64
        for seq in range(1, 6):
            payload = {"type": "run_ended", "state": "finished", "reason": f"n {seq} é"}
            event = link(
                run_id=request.run_id, seq=seq, at=1.5 + seq, type="x", actor="a", payload=payload, prev_hash=prev
            )
            prev = event.hash
            if seq > request.after_seq:
                yield sv.ReadEventsResponse(
                    event=Event(
                        run_id=event.run_id,
                        seq=seq,
                        type=event.type,
                        actor=event.actor,
                        payload_json=canonical_json(payload),
                        prev_hash=event.prev_hash,
                        hash=event.hash,
                        at_unix_s=event.at,
                    )
                )

    async def VerifyRun(self, request: sv.VerifyRunRequest, context: Any) -> sv.VerifyRunResponse:
        return sv.VerifyRunResponse(ok=True, events=5, head_hash="ab" * 32)

    async def GetBlob(self, request: sv.GetBlobRequest, context: Any) -> sv.GetBlobResponse:
        if request.sha256 not in BLOBS:
            raise NotFound("there is no such blob", field="sha256")
        return sv.GetBlobResponse(media_type="text/plain", content=BLOBS[request.sha256])

    async def GetBaseline(self, request: ev.GetBaselineRequest, context: Any) -> ev.GetBaselineResponse:
        self.calls.append(request)
        if self.evaluator_down:
            raise Unavailable("the evaluator is down")
        after = ScoreCounts(**{"pass": 279, "fail": 117})
        return ev.GetBaselineResponse(baseline=ev.Baseline(fixed=78, after=after, method="oscap alone"))

    async def Export(self, request: ev.ExportRequest, context: Any) -> ev.ExportResponse:
        if request.format == "arf":
            # Larger than one piece on the wire.
            return ev.ExportResponse(content=b"<arf/>" * 400_000, media_type="application/xml")
        raise NotFound("there is no such format", field="format")

    async def AddTarget(self, request: cp.AddTargetRequest, context: Any) -> cp.AddTargetResponse:
        self.calls.append(request)
        return cp.AddTargetResponse(target=request.target)

    async def ForkRun(self, request: ct.ForkRunRequest, context: Any) -> ct.ForkRunResponse:
        self.calls.append(request)
        return ct.ForkRunResponse(run_id="run-fork")

    async def PauseRun(self, request: ct.PauseRunRequest, context: Any) -> ct.PauseRunResponse:
        self.calls.append(request)
        if request.run_id != self.run.run_id:
            raise NotFound("there is no such run", field="run_id")
        return ct.PauseRunResponse(state="paused")

    async def ResumeRun(self, request: ct.ResumeRunRequest, context: Any) -> ct.ResumeRunResponse:
        self.calls.append(request)
        raise FailedPrecondition("run is not paused, but executing", field="run_id")

    async def ListApprovals(self, request: ct.ListApprovalsRequest, context: Any) -> ct.ListApprovalsResponse:
        self.calls.append(request)
        found = [a for a in self.approvals.values() if request.run_id or a.state == "asked"]
        return ct.ListApprovalsResponse(approvals=found)

    async def GetApproval(self, request: ct.GetApprovalRequest, context: Any) -> ct.GetApprovalResponse:
        if request.id not in self.approvals:
            raise NotFound(f"there is no approval {request.id!r}", field="id")
        asked, script = self.approvals[request.id], "#!/bin/bash\nmkfs /dev/sdx\n"
        return ct.GetApprovalResponse(
            approval=asked, item_title="A rule", action_kind="bash", content=script, source="vendor"
        )

    async def AnswerApproval(self, request: ct.AnswerApprovalRequest, context: Any) -> ct.AnswerApprovalResponse:
        self.calls.append(request)
        asked = self.approvals[request.id]
        if request.action_hash != asked.action_hash:
            raise FailedPrecondition("the action is not the one that was shown", field="action_hash")
        if asked.state != "asked":
            raise FailedPrecondition(f"too late: it is {asked.state} by {asked.by}", field="id")
        asked.state, asked.by = "granted" if request.granted else "denied", request.by
        asked.reason = request.reason
        return ct.AnswerApprovalResponse(approval=asked)

    async def ListQueues(self, request: qu.ListQueuesRequest, context: Any) -> qu.ListQueuesResponse:
        self.calls.append(request)
        return qu.ListQueuesResponse(queues=[qu.Queue(work_class="action", depth=3)])

    async def GetParked(self, request: qu.GetParkedRequest, context: Any) -> qu.GetParkedResponse:
        return qu.GetParkedResponse(message=qu.ParkedMessage(id=request.id), data=b"x")

    async def RetryParked(self, request: qu.RetryParkedRequest, context: Any) -> qu.RetryParkedResponse:
        self.calls.append(request)
        raise FailedPrecondition("nobody waits for it", field="id")

    async def DropParked(self, request: qu.DropParkedRequest, context: Any) -> qu.DropParkedResponse:
        self.calls.append(request)
        return qu.DropParkedResponse(message=qu.ParkedMessage(id=request.id, state="dropped"))


@dataclass
class Gateway:
    """A running gateway and how to reach it."""

    app: GatewayApp
    http: httpx.AsyncClient
    stub: Any
    url: str
    token: str

    async def ask(self, *, run: str = "run-1", headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
        """One chat completion as the worker role of a run."""
        body = {"model": "worker", "messages": [{"role": "user", "content": "Id: rule_1"}], "max_tokens": 500} | body
        sent = {"x-anneal-run": run, "x-anneal-item": "rule_1", "x-anneal-profile": "scripted"} | dict(headers or {})
        return await self.http.post("/v1/chat/completions", json=body, headers=sent)


MakeGateway = Callable[..., Awaitable[Gateway]]


def scripted_profile(server: ModelServer, **changes: Any) -> dict[str, Any]:
    """A profile of the scripted server, as anneal.yaml has it."""
    return {"base_url": server.url, "model": "scripted", "may": "author", "context_tokens": 8192} | changes


@pytest_asyncio.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(delay_s=5.0) as server:
        yield server


@pytest.fixture
def behind() -> Behind:
    return Behind()  # type: ignore[abstract]  # it answers only what these tests ask


@pytest_asyncio.fixture
async def make_gateway(
    postgres_dsn: str, auth_token: str, tmp_path: Path, behind: Behind
) -> AsyncIterator[MakeGateway]:
    """Starts gateways on one database; all end with the test."""
    async with AsyncExitStack() as stack:
        others = await serve(
            listen="127.0.0.1:0",
            token=auth_token,
            services=[
                (
                    "anneal.supervisor.v1.SupervisorService",
                    _register(sv_grpc.add_SupervisorServiceServicer_to_server, behind),
                ),
                ("anneal.supervisor.v1.QueueService", _register(qu_grpc.add_QueueServiceServicer_to_server, behind)),
                (
                    "anneal.supervisor.v1.ControlService",
                    _register(ct_grpc.add_ControlServiceServicer_to_server, behind),
                ),
                (
                    "anneal.evaluator.v1.EvaluatorService",
                    _register(ev_grpc.add_EvaluatorServiceServicer_to_server, behind),
                ),
                (
                    "anneal.checkpoint.v1.CheckpointService",
                    _register(cp_grpc.add_CheckpointServiceServicer_to_server, behind),
                ),
            ],
        )
        stack.push_async_callback(others.stop, 0)
        address = f"127.0.0.1:{others.port}"

        async def make(profiles: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Gateway:
            file = tmp_path / "anneal.yaml"
            file.write_text(yaml.safe_dump({"version": 1, "profiles": dict(profiles)}))
            settings = load(
                GatewaySettings,
                {
                    "ANNEAL_POSTGRES_DSN": postgres_dsn,
                    "ANNEAL_AUTH_TOKEN": auth_token,
                    "ANNEAL_MODELS_FILE": str(file),
                    "ANNEAL_SUPERVISOR_ADDR": address,
                    "ANNEAL_EVALUATOR_ADDR": address,
                    "ANNEAL_CHECKPOINT_ADDR": address,
                    "ANNEAL_SHUTDOWN_GRACE_S": "1",
                    **(environ or {}),
                },
            )
            app = await GatewayApp.create(settings, environ or {})
            await app.start()
            stack.push_async_callback(app.stop)
            url = f"http://127.0.0.1:{app.http_port}"
            http = httpx.AsyncClient(
                base_url=url, headers={"authorization": f"Bearer {auth_token}"}, trust_env=False, timeout=20
            )
            stack.push_async_callback(http.aclose)
            to_gateway = channel(f"127.0.0.1:{app.port}", auth_token)
            stack.push_async_callback(to_gateway.close)
            return Gateway(app=app, http=http, stub=GatewayServiceStub(to_gateway), url=url, token=auth_token)

        yield make


def _register(add: Callable[[Any, Any], None], servicer: object) -> Callable[[Any], None]:
    return lambda server: add(servicer, server)
