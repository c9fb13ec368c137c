"""What an upstream is sent, and the bound of what it may use."""

import json
from typing import Any

import pytest
from anneal_contracts.roles import ModelRole
from anneal_gateway.estimate import prompt_tokens
from anneal_gateway.profiles import Profile
from anneal_gateway.shape import checked, role_of, shaped
from anneal_runtime.errors import InvalidArgument
from hypothesis import given
from hypothesis import strategies as st

SCHEMA = {"type": "json_schema", "json_schema": {"name": "A", "schema": {"type": "object"}, "strict": True}}


def _body(**changes: Any) -> dict[str, Any]:
    return {"model": "worker", "messages": [{"role": "user", "content": "hi"}], **changes}


def _profile(**changes: Any) -> Profile:
    return Profile.model_validate({"base_url": "http://x/v1", "model": "m", **changes})


@given(st.lists(st.text(max_size=300), min_size=1, max_size=6))
def test_the_bound_is_never_below_one_token_a_byte(texts: list[str]) -> None:
    bound = prompt_tokens({"messages": [{"role": "user", "content": t} for t in texts]})
    assert bound >= sum(len(t.encode()) for t in texts)


def test_tools_and_schemas_that_a_template_may_print_are_counted() -> None:
    plain = prompt_tokens(_body())
    assert prompt_tokens(_body(tools=[{"name": "x" * 500}])) > plain + 500
    assert prompt_tokens(_body(response_format=SCHEMA)) > plain + 50
    parts = _body(messages=[{"role": "user", "content": [{"type": "text", "text": "y" * 500}]}])
    assert prompt_tokens(parts) > plain + 490


def test_an_answer_never_gets_more_room_than_the_context_has() -> None:
    profile = _profile(context_tokens=2048, roles={"worker": {"max_tokens": 300}})
    assert shaped(_body(), profile, ModelRole.WORKER)["max_tokens"] == 300
    assert shaped(_body(max_tokens=10**6), profile, ModelRole.WORKER)["max_tokens"] == 2048
    assert shaped(_body(max_completion_tokens=70), profile, ModelRole.WORKER)["max_tokens"] == 70


@pytest.mark.parametrize(
    ("structured", "expected"), [("json_schema", SCHEMA), ("json_object", {"type": "json_object"}), ("none", None)]
)
def test_a_schema_is_asked_for_as_the_server_knows_it(structured: str, expected: Any) -> None:
    profile = _profile(quirks={"structured": structured})
    body = _body(response_format=SCHEMA)
    assert shaped(body, profile, ModelRole.WORKER).get("response_format") == expected
    assert body["response_format"] is SCHEMA


def test_a_grammar_forbids_free_white_space() -> None:
    sent = shaped(_body(response_format=SCHEMA), _profile(quirks={"structured": "llguidance"}), ModelRole.WORKER)
    head, _, schema = sent["grammar"].partition("%json ")
    assert head == "%llguidance {}\nstart: "
    assert json.loads(schema) == {"type": "object", "x-guidance": {"whitespace_flexible": False}}
    assert "response_format" not in sent


def test_thinking_is_switched_as_the_server_knows_it() -> None:
    roles = {"architect": {"thinking": True}}
    by_template = _profile(roles=roles, quirks={"thinking": "enable_thinking"})
    assert shaped(_body(), by_template, ModelRole.ARCHITECT)["chat_template_kwargs"] == {"enable_thinking": True}
    assert shaped(_body(), by_template, ModelRole.WORKER)["chat_template_kwargs"] == {"enable_thinking": False}
    by_effort = _profile(roles=roles, quirks={"thinking": "reasoning_effort"})
    assert shaped(_body(), by_effort, ModelRole.ARCHITECT)["reasoning_effort"] == "medium"
    assert "chat_template_kwargs" not in json.dumps(shaped(_body(), _profile(roles=roles), ModelRole.ARCHITECT))


def test_extra_fields_never_override_what_the_limits_stand_on() -> None:
    profile = _profile(quirks={"extra_body": {"max_tokens": 10**6, "model": "other", "top_k": 5}})
    sent = shaped(_body(max_tokens=50), profile, ModelRole.WORKER)
    assert (sent["max_tokens"], sent["model"], sent["top_k"]) == (50, "m", 5)


def test_a_role_is_known_by_header_by_name_or_by_its_model() -> None:
    profile = _profile(roles={"reflector": {"model": "small"}})
    assert role_of("anything", "architect", profile) is ModelRole.ARCHITECT
    assert role_of("reflector", "", profile) is ModelRole.REFLECTOR
    assert role_of("small", "", profile) is ModelRole.REFLECTOR
    assert role_of("m", "", profile) is ModelRole.WORKER
    with pytest.raises(InvalidArgument):
        role_of("gpt", "", profile)


@pytest.mark.parametrize(
    "body", [None, [], {}, {"messages": "x"}, {"messages": ["x"]}, _body(max_tokens=True), _body(logprobs=1)]
)
def test_a_request_of_another_shape_is_refused(body: Any) -> None:
    with pytest.raises(InvalidArgument):
        checked(body)
