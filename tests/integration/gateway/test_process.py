"""The gateway as the process it is in production."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from anneal_runtime.children import free_port
from anneal_runtime.testing import eventually

# The bound for all processes is 700 MB; this one's share.
MAX_RSS_MB = 90


async def _start(environ: dict[str, str]) -> asyncio.subprocess.Process:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ANNEAL_")}
    clean |= {f"ANNEAL_{name}_ADDR": "127.0.0.1:1" for name in ("SUPERVISOR", "EVALUATOR", "CHECKPOINT")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anneal_gateway", env=clean | environ, stderr=asyncio.subprocess.PIPE
    )


async def _healthy(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            return (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False


async def test_it_starts_small_answers_and_ends_cleanly_on_sigterm(postgres_dsn: str, auth_token: str) -> None:
    port = free_port()
    process = await _start(
        {
            "ANNEAL_POSTGRES_DSN": postgres_dsn,
            "ANNEAL_AUTH_TOKEN": auth_token,
            "ANNEAL_GATEWAY_HTTP_LISTEN": f"127.0.0.1:{port}",
        }
    )
    try:
        await eventually(lambda: _healthy(port), timeout=20)
        rss_mb = psutil.Process(process.pid).memory_info().rss / 1e6
        assert rss_mb < MAX_RSS_MB, f"{rss_mb:.0f} MB"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("profiles: {big: {base_url: 'http://x/v1', model: m, may: everything}}", "profiles.big.may"),
        ("{", "is not YAML"),
    ],
)
async def test_a_bad_models_file_is_named_and_nothing_starts(
    tmp_path: Path, auth_token: str, text: str, named: str
) -> None:
    file = tmp_path / "anneal.yaml"
    file.write_text(text)
    process = await _start({"ANNEAL_MODELS_FILE": str(file), "ANNEAL_AUTH_TOKEN": auth_token})
    assert process.stderr is not None
    told = await asyncio.wait_for(process.stderr.read(), 20)
    assert await process.wait() == 78
    assert named in told.decode()
    assert str(file) in told.decode()
