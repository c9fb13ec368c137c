"""Settings of the evaluator: environment variables `ANNEAL_<FIELD>`."""

from pathlib import Path
from typing import ClassVar

from anneal_runtime.settings import ServiceSettings
from pydantic import Field


class EvaluatorSettings(ServiceSettings):
    """What the evaluator may be told, beside what every service is told."""

    service: ClassVar[str] = "evaluator"

    supervisor_addr: str = Field(description="host:port of the supervisor.")
    checkpoint_addr: str = Field(description="host:port of the checkpoint service.")
    skills_dir: Path = Field(description="Folder with one folder a skill.")
    home: Path = Field(description="Data folder; skills keep what they can rebuild below it.")
    concurrency: int = Field(
        default=2, ge=1, le=32, description="Evaluations at once. Two: one run's, and one more run's beside it."
    )
