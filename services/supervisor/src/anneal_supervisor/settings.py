"""Settings of the supervisor: environment variables `ANNEAL_<FIELD>`."""

from typing import ClassVar

from anneal_runtime.settings import ServiceSettings
from pydantic import Field


class SupervisorSettings(ServiceSettings):
    """What the supervisor may be told, beside what every service is told."""

    service: ClassVar[str] = "supervisor"

    checkpoint_addr: str = Field(description="host:port of the checkpoint service.")
    memory_addr: str = Field(description="host:port of the memory service.")
    evaluator_addr: str = Field(description="host:port of the evaluator.")
    max_runs: int = Field(default=16, ge=1, le=1000, description="Runs that one replica drives at once.")
    run_lease_s: float = Field(
        default=15.0,
        ge=2,
        le=300,
        description="Seconds after which a silent replica's runs go to another. Three renewals fit in.",
    )
    target_lease_s: float = Field(
        default=120.0,
        ge=10,
        le=3600,
        description="Lease of a target in seconds, renewed at a third of it; a run outlives a restart of everything.",
    )
    max_group: int = Field(
        default=16,
        ge=1,
        le=100,
        description="Recalled scripts that are judged and kept together; 1: each by itself. More saves little: the "
        "look at the machine is then a small part, and a group that fails is tried again one by one.",
    )
    max_steps: int = Field(default=5000, ge=10, le=1_000_000, description="Cap of steps of a run that names none.")
    max_time_s: float = Field(
        default=86_400.0, ge=10, description="Longest time budget in seconds that a run may ask for."
    )
