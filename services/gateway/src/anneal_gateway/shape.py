"""From what a caller asks to what an upstream is sent: model and sampling of the role, and the server's quirks."""

import json
from collections.abc import Mapping
from typing import Any

from anneal_contracts.roles import ModelRole
from anneal_runtime.errors import InvalidArgument

from anneal_gateway.profiles import Profile, RoleSettings

# What a caller may send; anything else could reach around the profile.
_ALLOWED = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "response_format", "stream", "stream_options",
        "temperature", "top_p", "stop", "seed", "tools", "tool_choice", "user",
    }
)  # fmt: skip
MAX_MESSAGES = 200


def checked(body: Any) -> dict[str, Any]:
    """A request whose shape can be trusted. Raises InvalidArgument naming the field."""
    if not isinstance(body, dict):
        raise InvalidArgument("The request must be a JSON object.")
    unknown = sorted(set(body) - _ALLOWED)
    if unknown:
        raise InvalidArgument("This field cannot be sent through the model door.", field=unknown[0])
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise InvalidArgument("Must be a list of messages.", field="messages")
    if len(messages) > MAX_MESSAGES:
        raise InvalidArgument(f"At most {MAX_MESSAGES} messages.", field="messages")
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InvalidArgument("Must be a whole number above 0.", field=name)
    return body


def role_of(model: str, header: str, profile: Profile) -> ModelRole:
    """The role a call is for: the header, else a role's name in the model field, else the role that uses that model."""
    if header or model in {role.value for role in ModelRole}:
        try:
            return ModelRole(header or model)
        except ValueError:
            raise InvalidArgument("Must be architect, worker or reflector.", field="x-anneal-role") from None
    for role in (ModelRole.WORKER, ModelRole.REFLECTOR, ModelRole.ARCHITECT):
        if profile.model_of(role) == model:
            return role
    raise InvalidArgument(f"No role of this profile uses a model {model!r}; a role's name will do.", field="model")


def shaped(body: Mapping[str, Any], profile: Profile, role: ModelRole) -> dict[str, Any]:
    """The request for the upstream: profile over caller for the model, caller over profile for sampling."""
    spec = profile.role(role)
    sent = {k: v for k, v in body.items() if k not in ("max_completion_tokens", "user")}
    sent["model"] = profile.model_of(role)
    wanted = body.get("max_tokens") or body.get("max_completion_tokens") or spec.max_tokens
    sent["max_tokens"] = min(int(wanted), profile.context_tokens)
    for name, value in (("temperature", spec.temperature), ("top_p", spec.top_p)):
        if value is not None:
            sent.setdefault(name, value)
    if sent.get("stream"):
        # Without it a stream never says what it used.
        sent["stream_options"] = {"include_usage": True}
    _structure(sent, profile)
    _think(sent, profile, spec)
    return {**profile.quirks.extra_body, **sent}


def _structure(sent: dict[str, Any], profile: Profile) -> None:
    given = sent.get("response_format")
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        return
    if profile.quirks.structured == "json_object":
        sent["response_format"] = {"type": "json_object"}
    elif profile.quirks.structured != "json_schema":
        del sent["response_format"]
    if profile.quirks.structured == "llguidance":
        sent["grammar"] = _grammar((given.get("json_schema") or {}).get("schema") or {})


def _grammar(schema: Mapping[str, Any]) -> str:
    """The schema as a grammar of llama.cpp's engine, without free white space: small models drown in it.

    Inside response_format the engine ignores the same wish (tried with llama.cpp of October 2026).
    """
    strict = json.dumps({**schema, "x-guidance": {"whitespace_flexible": False}}, ensure_ascii=False)
    return f"%llguidance {{}}\nstart: %json {strict}"


def _think(sent: dict[str, Any], profile: Profile, spec: RoleSettings) -> None:
    if profile.quirks.thinking == "enable_thinking":
        sent["chat_template_kwargs"] = {"enable_thinking": spec.thinking}
    elif profile.quirks.thinking == "reasoning_effort":
        sent["reasoning_effort"] = "medium" if spec.thinking else "low"
