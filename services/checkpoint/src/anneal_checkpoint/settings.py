"""Settings of the checkpoint service: environment variables `ANNEAL_<FIELD>`."""

from pathlib import Path
from typing import ClassVar

from anneal_runtime.settings import ServiceSettings
from pydantic import Field


class CheckpointSettings(ServiceSettings):
    """What the service may be told, beside what every service is told."""

    service: ClassVar[str] = "checkpoint"

    home: Path = Field(description="Data folder of anneal. The lab's machines live below it, as the lab defines.")
    keep_generations: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Generations kept for a run under way, beside its first. Three: a revert goes back one; two "
        "are spare for a fault that is noticed late.",
    )
    keep_milestones: int = Field(
        default=4,
        ge=0,
        le=1000,
        description="Generations between these and the first, evenly spread, from which a fork can go on: at the most "
        "so many, at the least half. Each is a copy of what the machine has changed: 40 MB after many fixes.",
    )
    keep_runs: int = Field(
        default=2,
        ge=0,
        le=100,
        description="Runs whose saved states outlive their lease. Two: the last run and the one before can be undone, "
        "and forked.",
    )
    max_operations: int = Field(
        default=2,
        ge=1,
        le=16,
        description="Snapshots and restores at once, over all targets; each holds two connections for 0.1 to 4 s.",
    )
    max_changed_paths: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Changed paths that an answer carries. A page of evidence, not a listing.",
    )
    lease_ttl_max_s: float = Field(
        default=3600.0,
        gt=0,
        le=86_400,
        description="Longest lease in seconds. A holder that died blocks its target for no longer than this.",
    )
    sweep_interval_s: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds between tries at removing what a failed try left behind."
    )
