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
    advertise: str = Field(
        default="",
        pattern=r"^(\S+:\d{1,5})?$",
        description="host:port under which other replicas reach this one. Empty: where it listens.",
    )
    max_runs: int = Field(default=16, ge=1, le=1000, description="Runs that one replica drives at once.")
    run_lease_s: float = Field(
        default=6.0,
        ge=2,
        le=300,
        description="Seconds after which a silent replica's runs go to another. Three renewals fit in. Losing a lease "
        "by a pause costs a fold of the log and no more; a run that stands still for longer costs people's patience.",
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
    item_time_s: float = Field(
        default=1200.0,
        ge=0,
        description="Longest time in seconds on one item; 0: no bound. Where memory knows how long such items took, "
        "the budget is item_time_factor times that, never below item_time_floor_s.",
    )
    item_time_factor: float = Field(default=5.0, ge=0, le=100, description="0: the budget does not adapt.")
    item_time_floor_s: float = Field(
        default=120.0, ge=0, description="Least adapted time budget of an item in seconds."
    )
    item_steps: int = Field(default=60, ge=0, description="Steps that one item may take; 0: no bound.")
    item_tokens: int = Field(
        default=200_000, ge=0, description="Tokens of all model turns on one item, prompts included; 0: no bound."
    )
    probes_per_item: int = Field(
        default=8, ge=0, le=100, description="Questions about the target that a model may ask for one item; 0: none."
    )
    probes_per_turn: int = Field(default=3, ge=0, le=10, description="Of these, questions in one answer.")
    lessons_per_item: int = Field(
        default=3, ge=0, le=20, description="Failed attempts of a model's at one item that the Reflector looks at."
    )
    choices_per_run: int = Field(
        default=8, ge=0, le=1000, description="Times in a run that the Architect picks among items that are ready."
    )
    engagements_per_item: int = Field(
        default=3, ge=0, le=20, description="Times that the Architect looks at one item: the plan, then second looks."
    )
    review_failures: int = Field(default=2, ge=1, le=20, description="Failed tries after which it looks again.")
    review_gaps: int = Field(default=2, ge=1, le=20, description="Evaluator gaps after which it looks again.")
    plateau_similarity: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Likeness of a script or a lesson to an earlier one from which on it looks again. Rewordings of "
        "the skills' own fixes are above it in nine of ten cases, other ways to the same end below 0.73.",
    )
    max_steps: int = Field(default=5000, ge=10, le=1_000_000, description="Cap of steps of a run that names none.")
    max_time_s: float = Field(
        default=86_400.0, ge=10, description="Longest time budget in seconds that a run may ask for."
    )
