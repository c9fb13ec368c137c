"""Settings of the memory service: environment variables `ANNEAL_<FIELD>`."""

from typing import ClassVar

from anneal_runtime.settings import ServiceSettings
from pydantic import Field


class MemorySettings(ServiceSettings):
    """What the service may be told, beside what every service is told."""

    service: ClassVar[str] = "memory"

    half_life_days: float = Field(
        default=90.0,
        gt=0,
        le=3650,
        description="Days after which an unconfirmed tip is worth half. Ninety: a quarter, about the pace at which "
        "a distribution's minor releases change what a script meets.",
    )
    tip_ttl_days: float = Field(
        default=365.0, gt=0, le=3650, description="Days after which a tip that was not confirmed is no longer recalled."
    )
    ban_ttl_days: float = Field(
        default=90.0,
        gt=0,
        le=3650,
        description="Days after which a ban no longer holds. Shorter than a tip's: a wrong ban is never tried again, "
        "so time alone can mend it.",
    )
    ban_below: float = Field(
        default=0.3,
        ge=0,
        lt=0.5,
        description="Smoothed share of success under which a tip becomes a ban. 0.3: one success and four failures.",
    )
    bans_per_item: int = Field(
        default=20,
        ge=1,
        le=200,
        description="Bans that one recall gives for an item, newest first; bounds the answer.",
    )
    lessons_per_item: int = Field(
        default=3,
        ge=0,
        le=20,
        description="Lessons that one recall gives for an item, newest first: they go into prompts.",
    )
    max_content_bytes: int = Field(
        default=131_072,
        ge=1024,
        le=1_048_576,
        description="Longest script kept, in bytes of UTF-8. The largest fix of the RHEL 9 content has 41 kB.",
    )
    max_mechanism_chars: int = Field(
        default=2_000,
        ge=100,
        le=20_000,
        description="Longest explanation kept; more of it is cut: it goes into prompts.",
    )
    max_outcomes: int = Field(
        default=2_000,
        ge=1,
        le=20_000,
        description="Outcomes in one Record and items in one Recall; the largest profile known has 497.",
    )
