"""Spans by OpenTelemetry. Ids exist from the start (logs carry them); spans leave the process only with an endpoint."""

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()


def configure(service: str, otlp_endpoint: str) -> None:
    """Sets the process's tracer provider, once. otlp_endpoint: http://host:port of an OTLP/gRPC receiver, or empty."""
    # Imported here: the SDK and above all the exporter cost memory that a library user or a test need not pay.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from anneal_runtime.span_ids import SpanIds, WhileHeard

    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    resource = Resource({"service.name": f"anneal-{service}"})
    sampler = WhileHeard()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=SpanIds(), sampler=sampler)
    sampler.watch(provider)
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=not otlp_endpoint.startswith("https:"))
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def tracer(name: str) -> Tracer:
    """The tracer of a module; call with __name__."""
    return trace.get_tracer(name)


def inject(context: Context | None = None) -> dict[str, str]:
    """Headers that carry the current (or given) trace context; empty when there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    return carrier


def extract(headers: Mapping[str, str]) -> Context:
    """The trace context in headers; an empty one when there is none or it cannot be read."""
    return _propagator.extract(dict(headers))


def shutdown() -> None:
    """Sends what is left and stops the exporter."""
    stop = getattr(trace.get_tracer_provider(), "shutdown", None)
    if stop is not None:
        stop()
