"""Settings of a worker: environment variables `ANNEAL_<FIELD>`."""

from pathlib import Path
from typing import ClassVar

from anneal_runtime.settings import ServiceSettings
from pydantic import Field


class WorkerSettings(ServiceSettings):
    """What a worker may be told, beside what every service is told."""

    service: ClassVar[str] = "worker"

    supervisor_addr: str = Field(description="host:port of the supervisor.")
    checkpoint_addr: str = Field(description="host:port of the checkpoint service.")
    memory_addr: str = Field(description="host:port of the memory service.")
    gateway_url: str = Field(description="http:// address of the gateway: the only way to a model.")
    skills_dir: Path = Field(description="Folder with one folder a skill.")
    home: Path = Field(description="Data folder; skills keep what they can rebuild below it.")
    action_concurrency: int = Field(default=2, ge=1, le=32, description="Actions at once, over all targets.")
    model_concurrency: int = Field(default=2, ge=1, le=64, description="Plans and model turns at once.")
    post_concurrency: int = Field(
        default=1, ge=1, le=16, description="Reflections at once; they must never slow an action down."
    )
