"""Ids of spans: random, but for the places of a run's story, which bring their own. Apart, as it needs the SDK."""

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from anneal_runtime.story import given_ids


class SpanIds(RandomIdGenerator):
    """The id generator of every process."""

    def generate_span_id(self) -> int:
        given = given_ids.get()
        return given[1] if given else super().generate_span_id()

    def generate_trace_id(self) -> int:
        given = given_ids.get()
        return given[0] if given else super().generate_trace_id()
