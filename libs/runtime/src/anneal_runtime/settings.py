"""One frozen settings model a service, filled from the environment that __main__ hands in."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_origin

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from anneal_runtime.errors import InvalidArgument

PREFIX = "ANNEAL_"


class ServiceSettings(BaseSettings):
    """What every service is told. A service subclasses it, sets `service`, and adds fields of its own.

    A field `x` is read from ANNEAL_<SERVICE>_X, else from ANNEAL_X. Lists, mappings and models are given as JSON.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    # Name of the service; gives the prefix that is its own. Empty: none.
    service: ClassVar[str] = ""

    listen: str = Field(
        default="127.0.0.1:0",
        pattern=r"^\S+:\d{1,5}$",
        description="host:port of the gRPC server. Loopback by default; port 0 picks a free one.",
    )
    postgres_dsn: str = Field(default="", description="postgresql:// address with role, password and database.")
    nats_url: str = Field(default="", description="nats:// address of the bus, without the token.")
    auth_token: SecretStr = Field(
        default=SecretStr(""), description="The secret all services share; 16 characters or more."
    )
    otlp_endpoint: str = Field(default="", description="OTLP/gRPC address for spans. Empty: spans are not exported.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is logged."
    )
    shutdown_grace_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=10.0, description="Seconds that running calls get to end on SIGTERM; well under Kubernetes' 30."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what load() hands in: no hidden read of the process environment."""
        return (init_settings,)


S = TypeVar("S", bound=ServiceSettings)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """Builds the settings from environ. Raises InvalidArgument whose field is the environment key that is wrong."""
    own = f"{PREFIX}{cls.service.upper()}_" if cls.service else ""
    if own:
        _refuse_unknown(cls, environ, own)
    values: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name, info in cls.model_fields.items():
        key = next((k for k in _keys_of(own, name) if k in environ), "")
        keys[name] = key or f"{PREFIX}{name.upper()}"
        if key:
            values[name] = _decoded(info, key, environ[key])
    try:
        return cls(**values)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        inside = "".join(f"[{part}]" for part in first["loc"][1:])
        raise InvalidArgument(
            f"{first['msg']}{' at ' + inside if inside else ''}", field=keys.get(name, name)
        ) from None


def _keys_of(own: str, name: str) -> tuple[str, ...]:
    shared = f"{PREFIX}{name.upper()}"
    return (f"{own}{name.upper()}", shared) if own else (shared,)


def _refuse_unknown(cls: type[ServiceSettings], environ: Mapping[str, str], own: str) -> None:
    known = {key for name in cls.model_fields for key in _keys_of(own, name)}
    # ANNEAL_<SERVICE>_ADDR tells the others where this one is; all share one environment.
    known.add(f"{own}ADDR")
    for key in sorted(environ):
        if key.startswith(own) and key not in known:
            raise InvalidArgument(f"the {cls.service} service has no such setting", field=key)


def _decoded(info: FieldInfo, key: str, text: str) -> Any:
    """Text as given for scalars; JSON for lists, tuples, mappings and models."""
    origin = get_origin(info.annotation) or info.annotation
    is_plain = not (
        isinstance(origin, type)
        and (issubclass(origin, list | tuple | dict | set | frozenset) or hasattr(origin, "model_fields"))
    )
    if is_plain:
        return text
    try:
        return json.loads(text)
    except ValueError as e:
        raise InvalidArgument(f"is not JSON: {e}", field=key) from e
