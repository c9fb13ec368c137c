"""Model profiles: which server, which model a role uses and how, and what a model may do. The shape of anneal.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from anneal_contracts.facts import Frozen
from anneal_contracts.roles import May, ModelRole
from anneal_runtime.errors import InvalidArgument, NotFound
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from anneal_gateway.settings import GatewaySettings

DEFAULT = "default"
EMBEDDED = "embedded"


class RoleSettings(Frozen):
    """How one role uses its model."""

    model: str = Field(default="", description="Name of the model on the server. Empty: the profile's model.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="Sampling temperature. Absent: the server's default."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="Nucleus sampling.")
    thinking: bool = Field(default=False, description="Let the model reason before it answers (see quirks.thinking).")
    max_tokens: Annotated[int, Field(ge=16, le=65536)] = Field(
        default=2048, description="Tokens an answer may take, reasoning included, at the first try."
    )


class Limits(Frozen):
    """What one run may use of a profile. A run that reaches them goes on without a model."""

    calls_per_run: Annotated[int, Field(ge=1, le=100_000)] = Field(default=400, description="Model calls of a run.")
    tokens_per_run: Annotated[int, Field(ge=1000, le=10**10)] = Field(
        default=4_000_000, description="Tokens of a run, prompts and answers together."
    )


class Circuit(Frozen):
    """When a server counts as broken."""

    failures: Annotated[int, Field(ge=1, le=100)] = Field(default=3, description="Bad calls in a row that open it.")
    slow_call_s: Annotated[float, Field(gt=0)] = Field(
        default=90.0, description="Seconds after which an answered call counts as bad."
    )
    open_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=15.0, description="Seconds it stays open at first; each failed probe doubles them, up to eightfold."
    )


class Quirks(Frozen):
    """What this server needs beside the plain protocol."""

    structured: Literal["json_schema", "json_object", "llguidance", "none"] = Field(
        default="json_schema",
        description="How an answer is held to its schema. llguidance: a grammar (llama.cpp) without free white space.",
    )
    thinking: Literal["none", "enable_thinking", "reasoning_effort"] = Field(
        default="none",
        description="How thinking is switched: not at all, by chat_template_kwargs (Gemma on vLLM), or by effort.",
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="Fields added to every request as they are.")


class Profile(Frozen):
    """One way of using one server."""

    description: str = ""
    base_url: str = Field(
        default=EMBEDDED,
        description="OpenAI-compatible base address ending in /v1, or `embedded`: anneal's own server.",
    )
    api_key_env: str = Field(default="", description="Environment variable that holds the server's key. Empty: no key.")
    model: str = Field(default="", description="Name of the model for every role that does not name its own.")
    may: May = Field(default=May.NONE, description="author: write scripts. choose: pick a fix. none: words for people.")
    tools: bool = Field(
        default=False,
        description="The server's model calls functions: its questions and its action come as calls, not as JSON that "
        "is held to a schema.",
    )
    context_tokens: Annotated[int, Field(ge=1024, le=10**7)] = Field(
        default=16384, description="Context window of the model as served, prompt and answer together."
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(default=120.0, description="Seconds one call may take.")
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(default=3.0, description="Seconds to connect.")
    roles: dict[ModelRole, RoleSettings] = Field(default_factory=dict)
    limits: Limits = Limits()
    circuit: Circuit = Circuit()
    quirks: Quirks = Quirks()

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value != EMBEDDED and not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// address, or `embedded`")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _names_a_model(self) -> "Profile":
        missing = [role.value for role in ModelRole if not self.model_of(role)]
        if missing:
            raise ValueError(f"model: needed, since roles {', '.join(missing)} name none of their own")
        return self

    def role(self, role: ModelRole) -> RoleSettings:
        return self.roles.get(role, RoleSettings())

    def model_of(self, role: ModelRole) -> str:
        return self.role(role).model or self.model


class ModelsFile(Frozen):
    """The whole of anneal.yaml."""

    version: Literal[1] = 1
    profiles: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")], Profile] = Field(default_factory=dict)


# The embedded small model: used where being wrong is harmless. Its grammar engine keeps its answers compact.
EMBEDDED_PROFILE = Profile(
    description="The small model that comes with anneal: plain words for people, never a script.",
    base_url=EMBEDDED,
    model="smollm2",
    may=May.NONE,
    context_tokens=4096,
    timeout_s=60.0,
    roles={ModelRole.REFLECTOR: RoleSettings(temperature=0.3, max_tokens=160)},
    limits=Limits(calls_per_run=200, tokens_per_run=1_000_000),
    circuit=Circuit(failures=3, slow_call_s=45.0, open_s=10.0),
    quirks=Quirks(structured="llguidance"),
)


class Profiles:
    """The profiles of this process by name, with the keys they need."""

    def __init__(
        self, profiles: Mapping[str, Profile], keys: Mapping[str, SecretStr], problems: Mapping[str, str]
    ) -> None:
        self._profiles = dict(profiles)
        self._keys = dict(keys)
        self._problems = dict(problems)

    def get(self, name: str) -> Profile:
        """Raises NotFound naming the field; an empty name is the default profile."""
        return self.require(name, field="x-anneal-profile")

    def require(self, name: str, *, field: str) -> Profile:
        """The profile that an input field names. Raises NotFound naming that field."""
        try:
            return self._profiles[name or DEFAULT]
        except KeyError:
            known = ", ".join(sorted(self._profiles))
            raise NotFound(f"There is no model profile {name!r}; there are: {known}.", field=field) from None

    def items(self) -> list[tuple[str, Profile]]:
        return sorted(self._profiles.items(), key=lambda pair: (pair[0] != DEFAULT, pair[0]))

    def key(self, name: str) -> SecretStr:
        return self._keys.get(name or DEFAULT, SecretStr(""))

    def problem(self, name: str) -> str:
        """Why a profile cannot be used, in words; empty: it can."""
        return self._problems.get(name or DEFAULT, "")


def load_profiles(settings: GatewaySettings, environ: Mapping[str, str]) -> Profiles:
    """The profiles of the models file and the settings. Raises InvalidArgument naming file and field."""
    found = {DEFAULT: EMBEDDED_PROFILE}
    if settings.models_file:
        found.update(read_models_file(Path(settings.models_file)).profiles)
    keys: dict[str, SecretStr] = {}
    if settings.model_url:
        found[DEFAULT] = _given(settings)
        keys[DEFAULT] = settings.model_api_key
    problems = {}
    for name, profile in found.items():
        if profile.base_url == EMBEDDED:
            found[name] = profile.model_copy(update={"base_url": settings.local_model_url.rstrip("/")})
        if profile.api_key_env:
            keys[name] = SecretStr(environ.get(profile.api_key_env, ""))
            if not environ.get(profile.api_key_env):
                problems[name] = f"Environment variable {profile.api_key_env} is not set."
    return Profiles(found, keys, problems)


def read_models_file(path: Path) -> ModelsFile:
    """Reads anneal.yaml. Raises InvalidArgument whose field is FILE: path.to.the.field."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InvalidArgument(f"cannot be read: {e.strerror}", field=str(path)) from e
    except yaml.YAMLError as e:
        raise InvalidArgument(f"is not YAML: {e}", field=str(path)) from e
    try:
        return ModelsFile.model_validate(data or {})
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        # Pydantic marks a bad key of a mapping by a last part "[key]".
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(first["msg"].removeprefix("Value error, "), field=f"{path}: {where}") from e


def _given(settings: GatewaySettings) -> Profile:
    """The profile of `--model-url URL --model NAME`."""
    if not settings.model_name:
        raise InvalidArgument("is required where ANNEAL_MODEL_URL is given", field="ANNEAL_MODEL_NAME")
    return Profile(
        description="The server given by --model-url.",
        base_url=settings.model_url,
        model=settings.model_name,
        may=settings.model_may,
        roles={
            ModelRole.ARCHITECT: RoleSettings(temperature=0.6, thinking=True, max_tokens=4000),
            ModelRole.WORKER: RoleSettings(temperature=0.2, max_tokens=3000),
            ModelRole.REFLECTOR: RoleSettings(temperature=0.3, max_tokens=1000),
        },
    )
