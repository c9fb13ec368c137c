"""The model door with a real upstream: what passes, what is refused, and how it is accounted."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from anneal_runtime.testing import eventually

from tests.integration.gateway.conftest import Gateway, MakeGateway, scripted_profile
from tests.support.model_server import Behaviour, ModelServer


def _error(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def _ledger(gateway: Gateway) -> list[dict[str, Any]]:
    rows = await gateway.app._database.pool.fetch("SELECT * FROM model_calls ORDER BY started_at")
    return [dict(row) for row in rows]


async def test_an_answer_passes_unchanged_and_its_use_is_in_the_ledger(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    answer = await gateway.ask()
    assert answer.status_code == 200
    assert answer.json()["model"] == "scripted-1"
    (row,) = await _ledger(gateway)
    usage = answer.json()["usage"]
    assert (row["state"], row["run_id"], row["item_id"], row["role"]) == ("answered", "run-1", "rule_1", "worker")
    assert (row["model"], row["requested_model"]) == ("scripted-1", "scripted")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert not row["estimated"]
    used = await gateway.app._door._ledger.usage("run-1")
    assert (used.calls, used.tokens_used, used.tokens_reserved) == (1, usage["total_tokens"], 0)


async def test_the_profile_decides_model_and_quirks_and_no_header_of_ours_reaches_the_upstream(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    profile = scripted_profile(
        model,
        api_key_env="KEY",
        roles={"worker": {"model": "big", "thinking": True, "temperature": 0.25}},
        quirks={"thinking": "enable_thinking", "extra_body": {"top_k": 20}},
    )
    gateway = await make_gateway({"scripted": profile}, {"KEY": "s3cret"})
    shape = {"type": "json_schema", "json_schema": {"name": "A", "schema": {"type": "object"}}}
    assert (await gateway.ask(response_format=shape)).status_code == 200
    sent, headers = model.requests[0], model.headers[0]
    assert (sent["model"], sent["temperature"], sent["top_k"]) == ("big", 0.25, 20)
    assert sent["chat_template_kwargs"] == {"enable_thinking": True}
    assert sent["response_format"] == shape
    assert headers["authorization"] == "Bearer s3cret"
    assert not [name for name in headers if name.startswith("x-anneal")]
    assert gateway.token not in json.dumps(headers)


async def test_a_stream_passes_line_by_line_and_is_settled_from_its_last_chunk(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    answer = await gateway.ask(stream=True)
    assert answer.headers["content-type"] == "text/event-stream"
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    text = "".join(c["delta"].get("content", "") for e in events[:-1] for c in json.loads(e)["choices"])
    assert json.loads(text)["title"] == "Add the setting"
    (row,) = await _ledger(gateway)
    assert row["state"] == "answered"
    assert 0 < row["completion_tokens"] < 500
    assert not row["estimated"]


async def test_who_leaves_a_stream_leaves_no_reservation_behind(make_gateway: MakeGateway, model: ModelServer) -> None:
    model.behaviour, model.delay_s = Behaviour.SLOW, 0.05
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    body = {"model": "worker", "messages": [{"role": "user", "content": "x"}], "max_tokens": 500, "stream": True}
    headers = {"x-anneal-run": "run-1", "x-anneal-profile": "scripted"}
    async with gateway.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        async for _ in answer.aiter_lines():
            break

    async def settled() -> bool:
        return (await gateway.app._door._ledger.usage("run-1")).tokens_reserved == 0

    await eventually(settled)
    (row,) = await _ledger(gateway)
    # The upstream may have worked on: what it did not say is charged in full.
    assert (row["state"], row["estimated"]) == ("failed", True)
    assert row["prompt_tokens"] == row["tokens_reserved"]


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour.DOWN, 503, "upstream_unavailable"),
        (Behaviour.BUSY, 429, "rate_limit_exceeded"),
        (Behaviour.GARBAGE, 503, "upstream_unavailable"),
        (Behaviour.LOCKED, 502, "upstream_misconfigured"),
        (Behaviour.SLOW, 504, "upstream_timeout"),
    ],
)
async def test_what_goes_wrong_upstream_is_a_typed_error_in_openais_shape(
    make_gateway: MakeGateway, model: ModelServer, behaviour: Behaviour, status: int, code: str
) -> None:
    model.behaviour = behaviour
    gateway = await make_gateway({"scripted": scripted_profile(model, timeout_s=0.3)})
    for stream in (False, True):
        if behaviour is Behaviour.GARBAGE and stream:
            continue
        model.delay_s = 2.0
        answer = await gateway.ask(stream=stream)
        assert (answer.status_code, _error(answer)["code"]) == (status, code)
    if behaviour is Behaviour.BUSY:
        assert answer.headers["retry-after"] == "7"
    assert (await gateway.app._door._ledger.usage("run-1")).tokens_reserved == 0


async def test_an_upstream_that_is_not_there_costs_nothing_and_is_said_at_once(
    make_gateway: MakeGateway, model: ModelServer
) -> None:
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    await model.stop()
    async with asyncio.timeout(1):
        answer = await gateway.ask()
    assert (answer.status_code, _error(answer)["code"]) == (503, "upstream_unavailable")
    assert (await gateway.app._door._ledger.usage("run-1")).tokens_used == 0


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"n": 50}, 400, "n"),
        ({"model": "nobody"}, 400, "model"),
        ({"headers": {"x-anneal-run": ""}}, 400, "x-anneal-run"),
        ({"headers": {"x-anneal-profile": "nope"}}, 404, "x-anneal-profile"),
        ({"headers": {"x-anneal-role": "boss"}}, 400, "x-anneal-role"),
        ({"headers": {"x-anneal-profile": "weak"}}, 403, "x-anneal-role"),
        ({"headers": {"x-anneal-profile": "keyless"}}, 502, "x-anneal-profile"),
        ({"headers": {"authorization": "Bearer wrong"}}, 401, "authorization"),
    ],
)
async def test_a_bad_call_is_refused_naming_the_field_and_reaches_nobody(
    make_gateway: MakeGateway, model: ModelServer, change: dict[str, Any], status: int, param: str
) -> None:
    gateway = await make_gateway(
        {
            "scripted": scripted_profile(model),
            "weak": scripted_profile(model, may="none"),
            "keyless": scripted_profile(model, api_key_env="NOT_SET"),
        }
    )
    answer = await gateway.ask(**change)
    assert (answer.status_code, _error(answer)["param"]) == (status, param)
    assert model.requests == []
    assert await _ledger(gateway) == []


async def test_a_request_without_end_is_cut_off(make_gateway: MakeGateway, model: ModelServer) -> None:
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    answer = await gateway.ask(messages=[{"role": "user", "content": "x" * (5 << 20)}])
    assert answer.status_code == 400
    assert model.requests == []


async def test_health_is_open_and_profiles_say_what_they_may(make_gateway: MakeGateway, model: ModelServer) -> None:
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as stranger:
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
        assert (await stranger.get("/readyz")).status_code == 200
        assert (await stranger.get("/v1/profiles")).status_code == 401
    profiles = {p["name"]: p for p in (await gateway.http.get("/v1/profiles")).json()["profiles"]}
    assert (profiles["default"]["may"], profiles["scripted"]["may"]) == ("none", "author")
    assert profiles["scripted"]["roles"]["worker"]["model"] == "scripted"
    models = (await gateway.http.get("/v1/models")).json()["data"]
    assert {"id": "scripted", "object": "model", "owned_by": "scripted"} in models
    assert "api_key" not in json.dumps(profiles)
