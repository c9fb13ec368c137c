"""Ids of spans, and whether they are recorded. Apart, as it needs the SDK.

Ids are random, but for the places of a run's story, which bring their own.
"""

from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

from anneal_runtime.story import given_ids


class SpanIds(RandomIdGenerator):
    """The id generator of every process."""

    def generate_span_id(self) -> int:
        given = given_ids.get()
        return given[1] if given else super().generate_span_id()

    def generate_trace_id(self) -> int:
        given = given_ids.get()
        return given[0] if given else super().generate_trace_id()


class WhileHeard(Sampler):
    """Records spans as long as somebody processes them, whatever the caller's process does; else they are ids alone."""

    def __init__(self) -> None:
        self._listeners: Any = None

    def watch(self, provider: TracerProvider) -> None:
        """Looks at this provider's processors from now on, also at those that are added later."""
        self._listeners = provider._active_span_processor

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        heard = self._listeners is not None and self._listeners._span_processors
        return (ALWAYS_ON if heard else ALWAYS_OFF).should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "WhileHeard"
