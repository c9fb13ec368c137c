"""Spans are recorded as soon as somebody listens, and are ids alone until then."""

from anneal_runtime.span_ids import WhileHeard
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def test_a_span_that_nobody_hears_of_has_ids_and_records_nothing() -> None:
    sampler = WhileHeard()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    sampler.watch(provider)
    span = provider.get_tracer("t").start_span("unheard")
    assert span.get_span_context().is_valid
    assert not span.is_recording()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The caller's process has no listener: this one has.
    above = trace.set_span_in_context(span)
    with provider.get_tracer("t").start_as_current_span("heard", context=above) as heard:
        assert heard.is_recording()
    assert [s.name for s in exporter.get_finished_spans()] == ["heard"]
    assert heard.get_span_context().trace_id == span.get_span_context().trace_id
