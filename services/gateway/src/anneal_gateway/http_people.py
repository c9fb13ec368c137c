"""HTTP of people's hand on a run: approvals, pause, resume. It forwards to the supervisor and decides nothing."""

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from anneal.supervisor.v1 import control_pb2 as ct
from fastapi import APIRouter, Header, Query
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from anneal.supervisor.v1.control_pb2_grpc import ControlServiceAsyncStub

_By = Annotated[
    str,
    Field(
        default="api",
        min_length=1,
        max_length=200,
        description="Who says so, as the run's log will have it. Whoever has the token is believed.",
    ),
]
_Key = Annotated[
    str, Header(max_length=180, description="The same key again is the same request; without one each is its own.")
]


class _Shape(BaseModel):
    """What goes over the wire: closed, so that a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(_Shape):
    message: str
    type: str
    param: str | None = Field(description="The field that is wrong, if it is one.")
    code: str = Field(description="Stable: not_found, failed_precondition, invalid_argument, unauthenticated ...")


class ErrorBody(_Shape):
    error: ErrorDetail


class Approval(_Shape):
    """A question to people about one destructive action."""

    id: str = Field(description="RUN/ITEM/NUMBER, unique.")
    run_id: str
    item_id: str
    attempt: int
    action_hash: str = Field(description="SHA-256 of the action: what is agreed to is this and nothing else.")
    title: str
    target: str
    skill: str
    state: Literal["asked", "granted", "denied", "expired", "void"]
    by: str = Field(description="Who answered; empty: nobody.")
    reason: str
    asked_at: datetime
    expires_at: datetime


class FullApproval(Approval):
    """The question with the script as it would run."""

    item_title: str
    action_kind: str = Field(description="bash or ansible.")
    source: str = Field(description="Where the script comes from: vendor, curated, recalled or model.")
    policy: str
    content: str


class Approvals(_Shape):
    approvals: list[Approval]


class Answer(_Shape):
    """A person's word."""

    granted: bool
    action_hash: str = Field(description="The action that was seen; the answer to another one is refused.")
    reason: str = Field(default="", max_length=500, description="Kept in the run's log.")
    by: _By


class Pause(_Shape):
    reason: str = Field(default="", max_length=500, description="Kept in the run's log.")
    by: _By


class Resume(_Shape):
    by: _By


class RunState(_Shape):
    run_id: str
    state: str = Field(description="The run's state now: paused, or a phase.")


def people(control: "ControlServiceAsyncStub") -> APIRouter:
    """The routes."""
    told: dict[int | str, dict[str, Any]] = {
        400: {"model": ErrorBody, "description": "A field is wrong; param names it."},
        401: {"model": ErrorBody, "description": "No token, or a wrong one."},
        404: {"model": ErrorBody, "description": "No such run or approval."},
        409: {"model": ErrorBody, "description": "Too late, or about another action; the message says who was first."},
        503: {"model": ErrorBody, "description": "The supervisor does not answer now; try again."},
    }
    router = APIRouter(prefix="/v1", responses=told)
    _add_approvals(router, control)
    _add_runs(router, control)
    return router


def _add_approvals(router: APIRouter, control: "ControlServiceAsyncStub") -> None:
    run_of = Query(description="Only of this run, and then also what was answered. Empty: of all runs.")

    @router.get("/approvals", summary="What runs ask of people now, oldest first", tags=["approvals"])
    async def list_approvals(run_id: Annotated[str, run_of] = "") -> Approvals:
        """With `run_id` also the questions of that run that were answered, expired or are void."""
        found = await control.ListApprovals(ct.ListApprovalsRequest(run_id=run_id))
        return Approvals(approvals=[Approval(**_facts(a)) for a in found.approvals])

    @router.get("/approvals/{id:path}", summary="One question, with the script as it would run", tags=["approvals"])
    async def get_approval(id: str) -> FullApproval:
        """`id` is RUN/ITEM/NUMBER as the list has it, slashes included."""
        found = await control.GetApproval(ct.GetApprovalRequest(id=id))
        return FullApproval(
            **_facts(found.approval),
            item_title=found.item_title,
            action_kind=found.action_kind,
            source=found.source,
            policy=found.policy,
            content=found.content,
        )

    @router.post("/approvals/{id:path}", summary="Agree to the action, or refuse it", tags=["approvals"])
    async def answer_approval(id: str, answer: Answer, idempotency_key: _Key = "") -> Approval:
        """The first answer counts. The same one again is harmless; another one is refused and told who was first."""
        request = ct.AnswerApprovalRequest(
            idempotency_key=idempotency_key or str(uuid.uuid4()),
            id=id,
            action_hash=answer.action_hash,
            granted=answer.granted,
            by=answer.by,
            reason=answer.reason,
        )
        return Approval(**_facts((await control.AnswerApproval(request)).approval))


def _add_runs(router: APIRouter, control: "ControlServiceAsyncStub") -> None:
    @router.post("/runs/{run_id}/pause", summary="Hold a run up", tags=["runs"])
    async def pause_run(run_id: str, pause: Pause | None = None, idempotency_key: _Key = "") -> RunState:
        """What is under way on the target ends and is judged first. The target stays leased. Repeating is harmless."""
        said = pause or Pause.model_validate({})
        key = idempotency_key or str(uuid.uuid4())
        request = ct.PauseRunRequest(idempotency_key=key, run_id=run_id, by=said.by, reason=said.reason)
        return RunState(run_id=run_id, state=(await control.PauseRun(request)).state)

    @router.post("/runs/{run_id}/resume", summary="Let a paused run go on", tags=["runs"])
    async def resume_run(run_id: str, resume: Resume | None = None, idempotency_key: _Key = "") -> RunState:
        """It goes on with the step that it stood before. 409 where it is not paused."""
        said = resume or Resume.model_validate({})
        key = idempotency_key or str(uuid.uuid4())
        request = ct.ResumeRunRequest(idempotency_key=key, run_id=run_id, by=said.by)
        return RunState(run_id=run_id, state=(await control.ResumeRun(request)).state)


def _facts(approval: ct.Approval) -> dict[str, Any]:
    names = ("id", "run_id", "item_id", "attempt", "action_hash", "title", "target", "skill", "state", "by", "reason")
    times = {"asked_at": _time(approval.asked_at), "expires_at": _time(approval.expires_at)}
    return {name: getattr(approval, name) for name in names} | times


def _time(stamp: Timestamp) -> str:
    return stamp.ToJsonString()
