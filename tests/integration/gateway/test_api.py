"""The gRPC side of the gateway: forwarding, the baseline, reports."""

import json

import pytest
from anneal.checkpoint.v1.checkpoint_pb2 import AddTargetRequest, Target
from anneal.gateway.v1.gateway_pb2 import GetReportRequest, ListUpstreamsRequest
from anneal.supervisor.v1.queues_pb2 import DropParkedRequest, GetParkedRequest, ListQueuesRequest, RetryParkedRequest
from anneal.supervisor.v1.supervisor_pb2 import CreateRunRequest, GetRunRequest, ReadEventsRequest, RunSpec
from anneal_core.chain import Event, verify
from anneal_runtime.errors import FailedPrecondition, NotFound

from tests.integration.gateway.conftest import Behind, Gateway, MakeGateway, scripted_profile
from tests.support.model_server import ModelServer
from tests.support.sample_run import SCRIPT


async def _report(gateway: Gateway, fmt: str, run_id: str) -> tuple[bytes, str, int]:
    pieces = [p async for p in gateway.stub.GetReport(GetReportRequest(run_id=run_id, format=fmt))]
    return b"".join(p.chunk for p in pieces), pieces[0].media_type, len(pieces)


async def test_a_run_comes_with_the_baseline_of_its_kind_of_machine(make_gateway: MakeGateway, behind: Behind) -> None:
    gateway = await make_gateway({})
    run = (await gateway.stub.GetRun(GetRunRequest(run_id=behind.run.run_id))).run
    assert getattr(run.score.baseline, "pass") == 279
    asked = behind.calls[-1]
    assert (asked.skill, asked.profile, asked.fingerprint) == ("stig-rhel9", "stig", "el9-9f2c")


async def test_a_run_can_be_looked_at_while_the_evaluator_is_down(make_gateway: MakeGateway, behind: Behind) -> None:
    behind.evaluator_down = True
    gateway = await make_gateway({})
    run = (await gateway.stub.GetRun(GetRunRequest(run_id=behind.run.run_id))).run
    assert run.state == "finished"
    assert not run.score.HasField("baseline")


async def test_errors_of_the_services_behind_arrive_as_what_they_are(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway({})
    with pytest.raises(NotFound) as caught:
        await gateway.stub.GetRun(GetRunRequest(run_id="nope"))
    assert caught.value.field == "run_id"
    with pytest.raises(NotFound) as caught:
        async for _ in gateway.stub.GetReport(GetReportRequest(run_id="x", format="nonsense")):
            pass
    assert caught.value.field == "format"


async def test_a_run_that_names_an_unknown_model_profile_is_refused_before_it_exists(
    make_gateway: MakeGateway, behind: Behind
) -> None:
    gateway = await make_gateway({})
    with pytest.raises(NotFound) as caught:
        await gateway.stub.CreateRun(CreateRunRequest(idempotency_key="k", spec=RunSpec(model_profile="nope")))
    assert caught.value.field == "spec.model_profile"
    assert behind.calls == []
    made = await gateway.stub.CreateRun(CreateRunRequest(idempotency_key="k", spec=RunSpec(model_profile="default")))
    assert made.run_id == behind.run.run_id


async def test_writes_pass_with_their_idempotency_key(make_gateway: MakeGateway, behind: Behind) -> None:
    gateway = await make_gateway({})
    request = AddTargetRequest(idempotency_key="k-1", target=Target(name="web1"))
    assert (await gateway.stub.AddTarget(request)).target.name == "web1"
    assert behind.calls == [request]


async def test_watching_passes_the_events_from_where_the_caller_stands(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway({})
    seen = [a.event.seq async for a in gateway.stub.WatchRun(ReadEventsRequest(run_id="r", after_seq=3))]
    assert seen == [4, 5]


async def test_the_log_as_lines_can_be_verified_by_anyone(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway({})
    content, media_type, _ = await _report(gateway, "jsonl", "r")
    assert media_type == "application/jsonl"
    events = [Event.model_validate_json(line) for line in content.splitlines()]
    assert verify(events).ok
    broken = [e.model_copy(update={"actor": "b"}) if e.seq == 3 else e for e in events]
    assert verify(broken).first_bad == 3


async def test_the_page_shows_the_exact_script_and_the_head_of_the_log(
    make_gateway: MakeGateway, behind: Behind
) -> None:
    gateway = await make_gateway({})
    content, media_type, _ = await _report(gateway, "html", behind.run.run_id)
    page = content.decode()
    assert media_type.startswith("text/html")
    assert SCRIPT.splitlines()[1] in page
    assert "ab" * 32 in page
    assert "oscap alone" in page


async def test_the_json_report_holds_the_run_and_its_baseline(make_gateway: MakeGateway, behind: Behind) -> None:
    gateway = await make_gateway({})
    content, _, _ = await _report(gateway, "json", behind.run.run_id)
    document = json.loads(content)
    assert document["score"]["baseline"]["pass"] == 279
    assert len(document["items"]) == 250


async def test_a_format_of_the_skills_own_comes_from_the_evaluator_in_pieces(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway({})
    content, media_type, pieces = await _report(gateway, "arf", "r")
    assert (len(content), media_type, pieces) == (2_400_000, "application/xml", 3)


async def test_upstreams_are_listed_with_their_circuit_and_their_problem(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    gateway = await make_gateway({"big": scripted_profile(model, api_key_env="NOT_SET")})
    default, big = (await gateway.stub.ListUpstreams(ListUpstreamsRequest())).upstreams
    assert (default.profile, default.may, default.circuit) == ("default", "none", "closed")
    assert default.base_url == "http://127.0.0.1:7480/v1"
    assert "NOT_SET" in big.problem.description


async def test_queues_and_parked_messages_are_the_supervisors(make_gateway: MakeGateway, behind: Behind) -> None:
    gateway = await make_gateway({})
    listed = await gateway.stub.ListQueues(ListQueuesRequest(limit=7))
    assert [(q.work_class, q.depth) for q in listed.queues] == [("action", 3)]
    assert (await gateway.stub.GetParked(GetParkedRequest(id="pk-1"))).data == b"x"
    with pytest.raises(FailedPrecondition) as caught:
        await gateway.stub.RetryParked(RetryParkedRequest(idempotency_key="r", id="pk-1"))
    assert caught.value.field == "id"
    dropped = await gateway.stub.DropParked(DropParkedRequest(idempotency_key="d", id="pk-1"))
    assert dropped.message.state == "dropped"
    assert [getattr(c, "idempotency_key", c) for c in behind.calls] == [ListQueuesRequest(limit=7), "r", "d"]
