"""The spans of a run's story: run > item > attempt, and below them what each process does for them.

Their ids follow from their names: no message has to carry them, and a replica that takes a run over goes on in the same
trace. They are told when they have ended, from the run's log.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags

_tracer = trace.get_tracer(__name__)

# Trace and span id of the span that is being made; telemetry's id generator asks here first.
given_ids: ContextVar[tuple[int, int] | None] = ContextVar("given_ids", default=None)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in a run's story: the run itself, one of its items, or an attempt at one."""

    run_id: str
    item_id: str = ""
    attempt: int = 0

    @property
    def ids(self) -> tuple[int, int]:
        """Trace id and span id: the same in every process, for ever."""
        return _number(16, self.run_id), _number(8, self.run_id, self.item_id, str(self.attempt))

    def doing(self, name: str) -> AbstractContextManager[Span]:
        """A span of what is done for this place now; linked to the current one, in which it was asked for."""
        asked = trace.get_current_span().get_span_context()
        return _tracer.start_as_current_span(
            name,
            context=self._context(),
            links=[Link(asked)] if asked.is_valid else [],
            attributes={"anneal.run_id": self.run_id, "anneal.item_id": self.item_id},
        )

    def _context(self) -> Context:
        trace_id, span_id = self.ids
        flags = TraceFlags(TraceFlags.SAMPLED)
        place = SpanContext(trace_id=trace_id, span_id=span_id, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(NonRecordingSpan(place), Context())

    def tell(
        self, began: float, ended: float, attributes: Mapping[str, str | int], *, failed: str | None = None
    ) -> None:
        """Makes the span of this place, which is over. began, ended: Unix seconds. failed: why; None: it did not."""
        above = self._above()
        name = "anneal.attempt" if self.attempt else "anneal.item" if self.item_id else "anneal.run"
        token = given_ids.set(self.ids)
        try:
            span = _tracer.start_span(
                name,
                context=above._context() if above else Context(),
                attributes={"anneal.run_id": self.run_id, "anneal.item_id": self.item_id, **attributes},
                start_time=_nanoseconds(began),
            )
        finally:
            given_ids.reset(token)
        if failed is not None:
            span.set_status(Status(StatusCode.ERROR, failed))
        span.end(_nanoseconds(ended))

    def _above(self) -> "Place | None":
        if self.attempt:
            return Place(run_id=self.run_id, item_id=self.item_id)
        return Place(run_id=self.run_id) if self.item_id else None


def _number(size: int, *names: str) -> int:
    """A number of so many bytes that names these; never 0, which would be no id."""
    return int.from_bytes(sha256("\0".join(names).encode()).digest()[:size]) or 1


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)
