"""Approvals, pause and resume over HTTP, and what a fork is told of its model."""

from typing import Any

import httpx
import pytest
from anneal.supervisor.v1 import control_pb2 as ct
from anneal_runtime.errors import NotFound

from tests.integration.gateway.conftest import Behind, MakeGateway, scripted_profile
from tests.support.model_server import ModelServer

ASKED = "run-1/wipe_disk/1"
HASH = "ab" * 32


@pytest.fixture(autouse=True)
def asked(behind: Behind) -> ct.Approval:
    one = ct.Approval(
        id=ASKED, run_id="run-1", item_id="wipe_disk", attempt=1, action_hash=HASH, title="vendor fix", target="web1",
        skill="stig", state="asked",
    )  # fmt: skip
    one.asked_at.seconds, one.expires_at.seconds = 1_790_000_000, 1_790_003_600
    behind.approvals[ASKED] = one
    behind.approvals["run-1/old/1"] = ct.Approval(id="run-1/old/1", run_id="run-1", item_id="old", state="expired")
    return one


def error(answer: httpx.Response) -> tuple[int, str, str | None, str]:
    """Status, type, field and code; the shape is that of every error of this server."""
    (told,) = answer.json().values()
    assert set(told) == {"message", "type", "param", "code"} and told["message"]
    return answer.status_code, told["type"], told["param"], told["code"]


async def test_what_is_asked_is_listed_and_of_one_run_also_what_was_answered(make_gateway: MakeGateway) -> None:
    http = (await make_gateway({})).http
    (one,) = (await http.get("/v1/approvals")).json()["approvals"]
    assert (one["id"], one["state"], one["action_hash"]) == (ASKED, "asked", HASH)
    assert (one["asked_at"], one["expires_at"]) == ("2026-09-21T14:13:20Z", "2026-09-21T15:13:20Z")
    both = (await http.get("/v1/approvals", params={"run_id": "run-1"})).json()["approvals"]
    assert [a["state"] for a in both] == ["asked", "expired"]


async def test_one_question_comes_with_the_script_as_it_would_run(make_gateway: MakeGateway) -> None:
    http = (await make_gateway({})).http
    for path in (ASKED, ASKED.replace("/", "%2F")):
        found = (await http.get(f"/v1/approvals/{path}")).json()
        assert found["content"] == "#!/bin/bash\nmkfs /dev/sdx\n"
        assert (found["item_title"], found["action_kind"], found["source"]) == ("A rule", "bash", "vendor")
    missing = await http.get("/v1/approvals/run-1/none/1")
    assert error(missing) == (404, "invalid_request_error", "id", "not_found")


@pytest.mark.parametrize(("granted", "state"), [(True, "granted"), (False, "denied")])
async def test_the_first_answer_counts_and_the_second_is_told(
    make_gateway: MakeGateway, behind: Behind, granted: bool, state: str
) -> None:
    http = (await make_gateway({})).http
    word = {"granted": granted, "action_hash": HASH, "reason": "r", "by": "ann"}
    first = await http.post(f"/v1/approvals/{ASKED}", json=word, headers={"idempotency-key": "k-1"})
    assert (first.status_code, first.json()["state"], first.json()["by"]) == (200, state, "ann")
    sent = behind.calls[-1]
    assert (sent.idempotency_key, sent.id, sent.granted, sent.by, sent.reason) == ("k-1", ASKED, granted, "ann", "r")
    second = await http.post(f"/v1/approvals/{ASKED}", json={**word, "by": "bob"})
    assert error(second) == (409, "invalid_request_error", "id", "failed_precondition")
    assert second.json()["error"]["message"] == f"too late: it is {state} by ann"
    assert behind.calls[-1].idempotency_key not in ("", "k-1")


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ({"action_hash": HASH}, "granted"),
        ({"granted": True}, "action_hash"),
        ({"granted": "perhaps", "action_hash": HASH}, "granted"),
        ({"granted": True, "action_hash": HASH, "reason": "r" * 501}, "reason"),
        ({"granted": True, "action_hash": HASH, "by": ""}, "by"),
        ({"granted": True, "action_hash": HASH, "forever": True}, "forever"),
        ([], "body"),
    ],
)
async def test_an_answer_that_is_none_is_refused_with_its_field(
    make_gateway: MakeGateway, behind: Behind, word: Any, field: str
) -> None:
    http = (await make_gateway({})).http
    answer = await http.post(f"/v1/approvals/{ASKED}", json=word)
    assert error(answer) == (400, "invalid_request_error", field, "invalid_argument")
    assert behind.approvals[ASKED].state == "asked"


async def test_the_answer_to_an_action_that_was_not_seen_is_refused(make_gateway: MakeGateway, behind: Behind) -> None:
    http = (await make_gateway({})).http
    answer = await http.post(f"/v1/approvals/{ASKED}", json={"granted": True, "action_hash": "0" * 64})
    assert error(answer) == (409, "invalid_request_error", "action_hash", "failed_precondition")
    assert behind.approvals[ASKED].state == "asked"


async def test_a_run_is_paused_with_or_without_a_word_and_what_is_not_paused_does_not_resume(
    make_gateway: MakeGateway, behind: Behind
) -> None:
    http = (await make_gateway({})).http
    run_id = behind.run.run_id
    plain = await http.post(f"/v1/runs/{run_id}/pause")
    assert plain.json() == {"run_id": run_id, "state": "paused"}
    assert (behind.calls[-1].by, behind.calls[-1].reason) == ("api", "")
    await http.post(f"/v1/runs/{run_id}/pause", json={"reason": "lunch", "by": "ann"})
    assert (behind.calls[-1].by, behind.calls[-1].reason) == ("ann", "lunch")
    assert error(await http.post("/v1/runs/none/pause"))[::3] == (404, "not_found")
    resumed = await http.post(f"/v1/runs/{run_id}/resume", json={"by": "bob"})
    assert error(resumed) == (409, "invalid_request_error", "run_id", "failed_precondition")
    assert behind.calls[-1].by == "bob"


PATHS = [
    ("GET", "/v1/approvals"),
    ("GET", f"/v1/approvals/{ASKED}"),
    ("POST", f"/v1/approvals/{ASKED}"),
    ("POST", "/v1/runs/run-1/pause"),
    ("POST", "/v1/runs/run-1/resume"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_without_the_token_nothing_is_told_and_nothing_happens(
    make_gateway: MakeGateway, behind: Behind, method: str, path: str
) -> None:
    gateway = await make_gateway({})
    for headers in ({}, {"authorization": "Bearer wrong"}):
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as stranger:
            answer = await stranger.request(method, path, json={"granted": True, "action_hash": HASH})
        assert error(answer) == (401, "authentication_error", "authorization", "unauthenticated")
    assert not behind.calls


async def test_openapi_describes_every_path_and_every_field_of_an_answer(make_gateway: MakeGateway) -> None:
    http = (await make_gateway({})).http
    document = (await http.get("/openapi.json")).json()
    calls = {(m.upper(), p): call for p, methods in document["paths"].items() for m, call in methods.items()}
    assert all(call.get("summary") for call in calls.values())
    ours = {(m, p) for m, p in calls if p.startswith(("/v1/approvals", "/v1/runs"))}
    assert ours == {
        ("GET", "/v1/approvals"),
        ("GET", "/v1/approvals/{id}"),
        ("POST", "/v1/approvals/{id}"),
        ("POST", "/v1/runs/{run_id}/pause"),
        ("POST", "/v1/runs/{run_id}/resume"),
    }
    for one in ours:
        assert calls[one]["description"], one
        assert {"400", "401", "404", "409", "503"} <= set(calls[one]["responses"])
        assert "422" not in calls[one]["responses"], one
    answer = document["components"]["schemas"]["Answer"]
    assert answer["required"] == ["granted", "action_hash"]
    assert answer["properties"]["action_hash"]["description"]


async def test_a_fork_is_told_what_its_model_may_do_by_the_profile_and_not_by_who_asks(
    make_gateway: MakeGateway, behind: Behind, model: ModelServer
) -> None:
    gateway = await make_gateway(
        {"big": scripted_profile(model), "locked": scripted_profile(model, api_key_env="NONE")}
    )
    may = []
    for profile in ("", "default", "big", "locked"):
        request = ct.ForkRunRequest(idempotency_key="k", run_id="r", seq=3, model_profile=profile, model_may="author")
        assert (await gateway.stub.ForkRun(request)).run_id == "run-fork"
        may.append(behind.calls[-1].model_may)
    assert may == ["", "none", "author", "none"]
    with pytest.raises(NotFound) as unknown:
        await gateway.stub.ForkRun(ct.ForkRunRequest(idempotency_key="k", model_profile="nope"))
    assert unknown.value.field == "model_profile"
