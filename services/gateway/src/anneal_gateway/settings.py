"""What the gateway is told at its start."""

from typing import Annotated, ClassVar

from anneal_contracts.roles import May
from anneal_runtime.settings import ServiceSettings
from pydantic import Field, SecretStr

_ADDRESS = r"^\S+:\d{1,5}$"


class GatewaySettings(ServiceSettings):
    """Settings of the gateway: ANNEAL_GATEWAY_<FIELD> or ANNEAL_<FIELD>."""

    service: ClassVar[str] = "gateway"

    http_listen: str = Field(
        default="127.0.0.1:0",
        pattern=_ADDRESS,
        description="host:port of the model door and the health pages. Loopback by default; port 0 picks a free one.",
    )
    url: str = Field(
        default="", description="Address by which others reach http_listen. All services share it; not used here."
    )
    supervisor_addr: str = Field(pattern=_ADDRESS, description="host:port of the supervisor's gRPC server.")
    evaluator_addr: str = Field(pattern=_ADDRESS, description="host:port of the evaluator's gRPC server.")
    checkpoint_addr: str = Field(pattern=_ADDRESS, description="host:port of the checkpoint service's gRPC server.")
    models_file: str = Field(
        default="",
        description="Path of anneal.yaml with the model profiles. Empty: the built-in default profile alone.",
    )
    local_model_url: str = Field(
        default="http://127.0.0.1:7480/v1",
        description="Address of the embedded model server: what `base_url: embedded` in a profile stands for.",
    )
    model_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="An OpenAI-compatible server that takes the place of the default profile. Empty: none.",
    )
    model_name: str = Field(default="", description="The model's name on model_url; required with it.")
    model_may: May = Field(default=May.AUTHOR, description="What the model on model_url may do.")
    model_api_key: SecretStr = Field(default=SecretStr(""), description="Key for model_url, if it wants one.")
    call_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=30.0, description="Seconds that another service may take for one forwarded call."
    )
