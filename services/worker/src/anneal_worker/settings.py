"""Settings of a worker: environment variables `ANNEAL_<FIELD>`."""

from typing import ClassVar, Literal

from anneal_contracts.work import WorkClass
from anneal_skillkit.doer import DoerSettings
from pydantic import Field

Served = Literal[WorkClass.MODEL, WorkClass.ACTION, WorkClass.POST]


class WorkerSettings(DoerSettings):
    """What a worker may be told, beside what every doer is told."""

    service: ClassVar[str] = "worker"

    memory_addr: str = Field(description="host:port of the memory service.")
    gateway_url: str = Field(description="http:// address of the gateway: the only way to a model.")
    work_classes: tuple[Served, ...] = Field(
        default=(WorkClass.MODEL, WorkClass.ACTION, WorkClass.POST),
        min_length=1,
        description="Classes of work that this process takes in. All by default; replicas that take in one class each "
        "are counted and sized by it.",
    )
    action_concurrency: int = Field(default=2, ge=1, le=32, description="Actions at once, over all targets.")
    model_concurrency: int = Field(default=2, ge=1, le=64, description="Plans and model turns at once.")
    post_concurrency: int = Field(
        default=1, ge=1, le=16, description="Reflections at once; they must never slow an action down."
    )
