"""Logs: one JSON object a line, with the trace it belongs to."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from anneal_runtime import logs, telemetry
from openai import APIStatusError, AsyncOpenAI
from opentelemetry.sdk.trace import TracerProvider


@pytest.fixture(autouse=True)
def own_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    line: dict[str, object] = json.loads(lines[0])
    return line


def test_a_line_has_the_promised_fields_and_the_extra_ones(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker", "INFO")
    logging.getLogger("a.b").warning("two\nlines %s", 7, extra={"run_id": "r1"})
    line = last(capsys)
    assert line.pop("ts")
    assert line == {"level": "WARNING", "service": "worker", "logger": "a.b", "msg": "two\nlines 7", "run_id": "r1"}


def test_a_line_inside_a_span_has_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker", "INFO")
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        logging.getLogger("a").info("inside")
        sent = telemetry.inject()["traceparent"].split("-")
    line = last(capsys)
    assert (line["trace_id"], line["span_id"]) == (sent[1], sent[2])
    assert int(str(line["trace_id"]), 16) == span.get_span_context().trace_id


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker", "INFO")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("a").exception("failed")
    assert "KeyError: 'gone'" in str(last(capsys)["error"])


def test_an_extra_field_cannot_forge_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker", "INFO")
    logging.getLogger("a").info("x", extra={"service": "gateway"})
    assert last(capsys)["service"] == "worker"


def test_the_level_holds_and_configuring_twice_does_not_double(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker", "INFO")
    logs.configure("worker", "WARNING")
    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")
    assert last(capsys)["msg"] == "loud"


async def test_the_model_client_s_requests_are_not_logged_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("worker", "INFO")
    served = await asyncio.start_server(_no_models, "127.0.0.1", 0)
    port = served.sockets[0].getsockname()[1]
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}", api_key="k", max_retries=0) as client:
        with pytest.raises(APIStatusError):
            await client.models.list()
    served.close()
    assert capsys.readouterr().err == ""


async def _no_models(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Away\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


def test_trace_context_travels_by_headers() -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("parent") as parent:
        headers = telemetry.inject()
    child = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("c", context=telemetry.extract(headers))
    assert child.get_span_context().trace_id == parent.get_span_context().trace_id
    assert telemetry.inject(telemetry.extract({"traceparent": "rubbish"})) == {}
