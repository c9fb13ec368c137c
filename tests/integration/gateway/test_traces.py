"""Model calls in traces: the names of the GenAI conventions, and one trace from the worker's turn to the upstream."""

from collections.abc import Iterator

import pytest
from anneal_contracts.roles import PLAIN_WORDS, ModelRole
from anneal_gateway import genai
from anneal_runtime import telemetry
from anneal_runtime.testing import eventually
from anneal_worker.roles import ModelDoor
from anneal_worker.roles.door import Call
from anneal_worker.roles.forms import Form
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.integration.gateway.conftest import MakeGateway, scripted_profile
from tests.support.model_server import Behaviour, ModelServer


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    telemetry.configure("tests", "")
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    # A processor cannot be taken away again; shut down, it keeps quiet.
    processor.shutdown()


def _named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [s for s in spans.get_finished_spans() if s.name == name]
    return span


async def test_a_model_call_is_one_trace_with_the_pinned_names(
    make_gateway: MakeGateway, model: ModelServer, spans: InMemorySpanExporter
) -> None:
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    door = ModelDoor(gateway.url, gateway.token)
    call = Call(run_id="run-1", item_id="rule_1", profile="scripted", role=ModelRole.REFLECTOR)
    with telemetry.tracer("t").start_as_current_span("reflect") as turn:
        await door.complete(
            call,
            [{"role": "user", "content": "hi"}],
            form=Form(contract=PLAIN_WORDS).fields,
            max_tokens=90,
        )
    await door.close()
    await eventually(lambda: len(spans.get_finished_spans()) >= 3)
    served, chat = _named(spans, "POST /v1/chat/completions"), _named(spans, "chat scripted")
    assert served.parent is not None
    assert chat.parent is not None
    assert served.parent.span_id == turn.get_span_context().span_id
    assert served.context is not None
    assert chat.parent.span_id == served.context.span_id
    found = dict(chat.attributes or {})
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "scripted"
    assert found["gen_ai.response.model"] == "scripted-1"
    assert found["gen_ai.conversation.id"] == "run-1"
    assert found["gen_ai.request.max_tokens"] == 90
    assert int(str(found[genai.INPUT_TOKENS])) > 0
    assert int(str(found["gen_ai.usage.output_tokens"])) > 0
    assert found["gen_ai.response.finish_reasons"] == ("stop",)


async def test_a_failed_call_says_why_in_its_span_and_no_prompt_is_in_any(
    make_gateway: MakeGateway, model: ModelServer, spans: InMemorySpanExporter
) -> None:
    model.behaviour = Behaviour.DOWN
    gateway = await make_gateway({"scripted": scripted_profile(model)})
    await gateway.ask(messages=[{"role": "user", "content": "secret-of-the-target"}])
    chat = _named(spans, "chat scripted")
    assert chat.status.status_code is StatusCode.ERROR
    assert dict(chat.attributes or {})["error.type"] == "unavailable"
    assert "secret-of-the-target" not in "".join(s.to_json() for s in spans.get_finished_spans())
