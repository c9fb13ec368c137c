"""Settings of the evaluator: environment variables `ANNEAL_<FIELD>`."""

from typing import ClassVar

from anneal_skillkit.doer import DoerSettings
from pydantic import Field


class EvaluatorSettings(DoerSettings):
    """What the evaluator may be told, beside what every doer is told."""

    service: ClassVar[str] = "evaluator"

    concurrency: int = Field(
        default=2, ge=1, le=32, description="Evaluations at once. Two: one run's, and one more run's beside it."
    )
