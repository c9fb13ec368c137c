"""`anneal dev` with real embedded servers: ready, kept running, ended without leftovers however it ends."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from anneal_cli.dev.plan import OFFSETS, SERVICES
from anneal_cli.dev.ports import is_free
from anneal_cli.dev.state import DevState, read_state
from anneal_cli.home import Home
from anneal_runtime.embedded import EmbeddedPostgres

SCRIPT = Path(__file__).with_name("dev_with_fakes.py")
READY_S = 40.0


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Dev:
    """A data folder with ports of its own, and what runs in it."""

    home: Home
    base: int

    def start(self, *options: str, **faults: str) -> "subprocess.Popen[str]":
        """Starts `anneal dev` with fake services; faults: service -> how it misbehaves."""
        env = {**os.environ, **{f"FAKE_{name.upper()}": fault for name, fault in faults.items()}}
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.home.root), str(self.base), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )

    def anneal(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """The real command against this folder."""
        command = [sys.executable, "-m", "anneal_cli", "--home", str(self.home.root), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def state(self) -> DevState:
        found = read_state(self.home)
        assert found is not None
        return found

    def is_ready(self) -> bool:
        found = read_state(self.home)
        return found is not None and found.phase == "ready"

    def pid_of(self, name: str) -> int:
        return next((child.pid for child in self.state().children if child.name == name), 0)


def with_database_inside(home: Home, port: int) -> None:
    """A data folder as an early version left it: open to all, its database inside and another user's (for root)."""
    token = home.ensure_token()
    (home.root / "postgres").mkdir()
    for folder in (home.root, home.root / "postgres"):
        folder.chmod(0o755)
    postgres = EmbeddedPostgres(home.root / "postgres", port, token)
    postgres.start_sync()
    postgres.stop_sync()
    assert postgres.data.is_relative_to(home.root)


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """One data folder for the module: the database is made once."""
    root = Path(tempfile.mkdtemp(prefix="anneal-dev-"))
    bases = range(21000 + os.getpid() % 200 * 100, 60000, 100)
    base = next(b for b in bases if all(is_free(b + offset) for offset in OFFSETS.values()))
    home = Home(root=root)
    with_database_inside(home, base)
    yield Dev(home=home, base=base)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_survives_a_test(dev: Dev) -> Iterator[None]:
    yield
    found = read_state(dev.home)
    if found is not None:
        os.kill(found.pid, signal.SIGKILL)
        wait_until(lambda: read_state(dev.home) is None, "end of a dev that a test left")


@contextlib.contextmanager
def running(dev: Dev, *options: str, **faults: str) -> "Iterator[subprocess.Popen[str]]":
    with dev.start(*options, **faults) as process:
        try:
            wait_until(lambda: dev.is_ready() or process.poll() is not None, "readiness", READY_S)
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return list(psutil.Process(process.pid).children(recursive=True))


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_it_says_each_phase_and_the_addresses_and_ctrl_c_leaves_nothing(dev: Dev) -> None:
    with running(dev) as process:
        below = family(process)
        assert {child.name for child in dev.state().children} == {"postgres", "nats", *SERVICES}
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    for name in ("postgres", "nats", *SERVICES):
        assert f"{name:<10} ready after" in out
    assert f"gRPC 127.0.0.1:{dev.base}," in out
    assert "hello from worker" in out
    assert gone(below)
    assert all(is_free(dev.base + offset) for offset in OFFSETS.values())
    assert not dev.home.state_file.exists()
    assert dev.home.token_file.stat().st_mode & 0o777 == 0o600


def test_what_it_writes_is_for_its_owner_and_the_database_inside_is_still_reached(dev: Dev) -> None:
    with running(dev):
        root = dev.home.root
        assert stat.S_IMODE(root.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
        written = (
            dev.home.log_file,
            dev.home.state_file,
            root / "nats" / "nats.log",
            root / "postgres" / "postgres.log",
        )
        assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [0o600] * 4


def test_the_console_can_be_filtered_to_one_service(dev: Dev) -> None:
    with running(dev, "--service", "memory") as process:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert "hello from memory" in out
    assert "hello from worker" not in out


def test_kill_9_of_dev_leaves_nothing_and_the_next_start_works(dev: Dev) -> None:
    with running(dev, worker="family") as process:
        below = family(process)
        helpers = [p for p in below if p.name() == "sleep"]
        process.kill()
        wait_until(lambda: gone([p for p in below if p not in helpers]), "end of the children")
    with running(dev) as process:
        # What a service had started and not bound to itself is ended by the next start.
        assert helpers
        assert gone(helpers)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize("name", ["worker", "nats", "postgres"])
def test_a_killed_part_is_started_again(dev: Dev, name: str) -> None:
    with running(dev) as process:
        before = dev.pid_of(name)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: dev.pid_of(name) not in (0, before), f"a new {name}")
        wait_until(lambda: dev.anneal("dev", "status").returncode == 0, "all serve")
        child = next(child for child in dev.state().children if child.name == name)
        assert child.restarts == 1
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert "starting it again" in out


def test_a_crash_loop_ends_everything_with_the_last_lines(dev: Dev) -> None:
    with dev.start(evaluator="crash") as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "evaluator ended with exit code 1, 6 times within 60 s; everything is stopped" in err
    assert "evaluator gives up: the moon is full" in err
    assert "next: anneal dev logs --service evaluator" in err
    assert out.count("starting it again") == 5
    assert all(is_free(dev.base + offset) for offset in OFFSETS.values())


def test_wrong_settings_end_everything_at_once(dev: Dev) -> None:
    with dev.start(memory="config") as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 1
    assert "memory ended with exit code 78; everything is stopped" in err
    assert "starting it again" not in out


def test_a_service_that_will_not_end_and_what_a_service_left_are_ended(dev: Dev) -> None:
    with running(dev, memory="deaf", worker="family") as process:
        below = family(process)
        assert any(p.name() == "sleep" for p in below)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert gone(below)


def test_a_taken_port_is_named_before_anything_starts(dev: Dev) -> None:
    with socket.create_server(("127.0.0.1", dev.base + OFFSETS["nats"])), dev.start() as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 5
    assert f"port {dev.base + 70} (nats) is taken by pid {os.getpid()}" in err
    assert f"--port-base {dev.base + 1000}" in err
    assert not dev.home.state_file.exists()


def test_status_logs_and_stop_reach_the_running_one_and_a_second_is_refused(dev: Dev) -> None:
    with running(dev) as process:
        second = dev.anneal("dev", "--no-model", "--port-base", str(dev.base))
        assert second.returncode == 5
        assert f"already running, pid {process.pid}" in second.stderr
        status = json.loads(dev.anneal("dev", "status", "--json").stdout)
        assert {part["name"]: part["state"] for part in status["parts"]}["worker"] == "serving"
        assert status["totals"]["rss_mb_without_model"] > 100
        table = dev.anneal("dev", "status")
        assert "without the model:" in table.stdout
        lines = dev.anneal("dev", "logs", "--service", "worker", "-n", "1").stdout.splitlines()
        assert len(lines) == 1
        assert "hello from worker" in lines[0]
        stopped = dev.anneal("dev", "stop")
        assert (stopped.returncode, f"stopped, pid {process.pid}" in stopped.stdout) == (0, True)
        assert process.wait(5) == 0
    assert dev.anneal("dev", "stop").stdout == "anneal dev is not running\n"
    assert dev.anneal("dev", "status").returncode == 3


def test_a_service_that_is_down_makes_status_fail(dev: Dev) -> None:
    with running(dev):
        os.kill(dev.pid_of("gateway"), signal.SIGSTOP)
        answer = dev.anneal("dev", "status")
        assert answer.returncode == 1
        assert "not serving" in answer.stdout


def test_the_log_file_has_every_line_as_json(dev: Dev) -> None:
    with running(dev) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    entries = [json.loads(line) for line in dev.home.log_file.read_text().splitlines()]
    assert {"dev", "postgres", "nats", *SERVICES} <= {entry["service"] for entry in entries}


@pytest.mark.timeout(120)
def test_the_real_services_start_in_the_background_and_stop(dev: Dev) -> None:
    begun = time.monotonic()
    started = dev.anneal("dev", "--detach", "--no-model", "--port-base", str(dev.base))
    assert started.returncode == 0, started.stderr
    assert time.monotonic() - begun < 60
    assert "anneal is ready after" in started.stdout
    below = psutil.Process(dev.state().pid).children(recursive=True)
    assert dev.anneal("runs", "--json").stdout.strip() == "[]"
    assert dev.anneal("dev", "stop", "--json").returncode == 0
    assert gone(below)


def test_a_start_in_the_background_that_fails_says_why(dev: Dev) -> None:
    with socket.create_server(("127.0.0.1", dev.base + OFFSETS["worker"])):
        answer = dev.anneal("dev", "--detach", "--no-model", "--port-base", str(dev.base))
    assert answer.returncode == 5
    assert f"port {dev.base + 20} (worker) is taken" in answer.stderr
