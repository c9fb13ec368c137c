"""The parts of embedded mode: ports and environments, the lock, the log, when a child is started again."""

import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import psutil
import pytest
from anneal_cli.dev import logs
from anneal_cli.dev.plan import OFFSETS, SERVICES, ModelChoice, Plan, find_skills
from anneal_cli.dev.ports import require_free
from anneal_cli.dev.state import ChildInfo, DevState, Lock, is_alive, read_state, start_time, write_state
from anneal_cli.dev.tree import MAX_DEATHS, Part, Running
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home


def plan(**more: object) -> Plan:
    facts = {"home": Path("/data"), "token": "secret-secret-secret", "skills_dir": Path("/skills"), **more}
    return Plan(**facts)  # type: ignore[arg-type]


def test_ports_are_those_of_the_readme_and_move_with_their_base() -> None:
    ports = plan().ports()
    assert (ports["gateway"], ports["gateway-http"], ports["supervisor"], ports["model"]) == (7400, 7401, 7410, 7480)
    assert {name: port + 1000 for name, port in ports.items()} == plan(port_base=8400).ports()
    assert len(set(ports.values())) == len(OFFSETS)


def test_each_service_is_told_its_own_address_and_the_others() -> None:
    for service in SERVICES:
        env = plan().environment(service, dsn="postgresql://x", inherited={"PATH": "/bin"})
        assert env["ANNEAL_LISTEN"] == plan().address(service)
        assert env["ANNEAL_SUPERVISOR_ADDR"] == "127.0.0.1:7410"
        assert env["ANNEAL_AUTH_TOKEN"] == "secret-secret-secret"
        assert env["PATH"] == "/bin"
        assert env["GRPC_ENABLE_FORK_SUPPORT"] == "0"


def test_settings_of_the_command_line_do_not_reach_services() -> None:
    inherited = {"ANNEAL_TOKEN": "t", "ANNEAL_GATEWAY": "g", "ANNEAL_PORT_BASE": "1", "ANNEAL_FAULTS": "x=kill"}
    env = plan().environment("gateway", dsn="", inherited=inherited)
    assert not set(env) & {"ANNEAL_TOKEN", "ANNEAL_GATEWAY", "ANNEAL_PORT_BASE"}
    assert env["ANNEAL_FAULTS"] == "x=kill"


def test_only_the_gateway_knows_the_model_and_a_named_one_may_author() -> None:
    chosen = plan(model=ModelChoice(url="http://gpu:8000/v1", name="gemma"))
    assert not [key for key in chosen.environment("worker", dsn="", inherited={}) if "MODEL" in key]
    env = chosen.environment("gateway", dsn="", inherited={})
    assert (env["ANNEAL_MODEL_URL"], env["ANNEAL_MODEL_NAME"], env["ANNEAL_MODEL_MAY"]) == (
        "http://gpu:8000/v1",
        "gemma",
        "author",
    )
    assert "model" not in chosen.ports()
    assert plan(model=ModelChoice(url="u", name="n", may="choose")).model_environment()["ANNEAL_MODEL_MAY"] == "choose"


def test_the_local_model_is_given_by_address_alone_so_that_it_may_author_nothing() -> None:
    env = plan().model_environment()
    assert env == {"ANNEAL_LOCAL_MODEL_URL": "http://127.0.0.1:7480/v1"}


def test_skills_of_the_checkout_are_found() -> None:
    found = find_skills()
    assert found is not None
    assert (found.parent / "pyproject.toml").exists()


def test_a_taken_port_is_named_with_its_part_its_process_and_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CliError) as caught:
            require_free({"nats": port}, port_base=port - 70)
    error = caught.value
    assert error.code is ExitCode.CONFLICT
    assert f"port {port} (nats) is taken by pid {os.getpid()}" in error.message
    assert "--port-base" in error.hint
    require_free({"nats": port}, port_base=1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path)


def state(pid: int, started: float, *children: ChildInfo) -> DevState:
    return DevState(pid=pid, started=started, port_base=1, phase="ready", ports={}, children=children)


def test_a_second_start_is_told_pid_and_how_to_stop_the_first(home: Home) -> None:
    with Lock(home), pytest.raises(CliError) as caught, Lock(home):
        pass
    assert caught.value.code is ExitCode.CONFLICT
    assert f"already running, pid {os.getpid()}" in caught.value.message
    assert caught.value.hint == "stop it with: anneal dev stop"


def test_the_lock_of_a_dead_one_is_no_lock(home: Home) -> None:
    home.lock_file.write_text("999999 1.0\n")
    with Lock(home) as lock:
        assert lock.recovered == ()
    with Lock(home):
        pass


def test_what_a_killed_predecessor_left_is_ended(home: Home) -> None:
    with subprocess.Popen(["sleep", "60"]) as left:
        started = start_time(left.pid)
        assert started is not None
        write_state(home, state(999_999, 1.0, ChildInfo(name="nats", pid=left.pid, started=started)))
        with Lock(home) as lock:
            assert lock.recovered == ("nats",)
        assert left.wait(5) == -9


def test_a_pid_that_was_used_again_is_left_alone(home: Home) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        started = start_time(other.pid)
        assert started is not None
        write_state(home, state(999_999, 1.0, ChildInfo(name="nats", pid=other.pid, started=started - 3600)))
        with Lock(home) as lock:
            assert lock.recovered == ()
        assert other.poll() is None
        other.kill()


def test_the_state_is_read_back_while_its_process_lives_and_ignored_after(home: Home) -> None:
    own = psutil.Process().create_time()
    written = state(os.getpid(), own, ChildInfo(name="nats", pid=1, started=2.0, restarts=3))
    write_state(home, written)
    assert read_state(home) == written
    write_state(home, state(os.getpid(), own - 3600))
    assert read_state(home) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"children": [{"x": 1}]}'])
def test_a_damaged_state_file_counts_as_none(home: Home, text: str) -> None:
    home.state_file.write_text(text)
    assert read_state(home) is None
    with Lock(home):
        pass


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert not is_alive(child.pid, psutil.Process(child.pid).create_time())


def test_a_service_s_json_line_becomes_one_short_line() -> None:
    line = json.dumps({"ts": 0, "level": "WARNING", "service": "x", "logger": "a.b", "msg": "slow", "took_s": 2.5})
    entry = logs.parse(line, "worker")
    assert logs.short(entry).endswith("worker     WARN  slow  took_s=2.5")
    assert logs.level_of(entry) == 30


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("plain words", 20),
        ("{not json", 20),
        ("2026 UTC [1] FATAL:  no", 50),
        ("[1] 2026 [ERR] no", 40),
        ("Traceback (most recent call last):", 40),
        ("2026 UTC [1] WARNING:  hm", 30),
        ('["a list"]', 20),
    ],
)
def test_a_foreign_line_is_kept_with_a_guessed_level(line: str, level: int) -> None:
    entry = logs.parse(line, "postgres")
    assert entry["msg"] == line
    assert logs.level_of(entry) == level


def test_an_exception_s_last_line_is_shown() -> None:
    entry = {"ts": "2026-01-01T00:00:00+00:00", "level": "ERROR", "service": "w", "msg": "no", "exc": "Tr\n  x\nE: y"}
    assert logs.short(entry).endswith("no | E: y")


def test_the_log_is_filtered_cut_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log" / "anneal.log"
    monkeypatch.setattr(logs, "MAX_BYTES", 200)
    file = logs.LogFile(path)
    for n in range(10):
        file.write({"service": "a" if n % 2 else "b", "msg": f"m{n}"})
    file.close()
    assert path.with_suffix(".log.1").exists()
    assert path.stat().st_size <= 240
    kept = logs.read_entries(path, service=None, last=100)
    assert [entry["msg"] for entry in kept] == [f"m{n}" for n in range(10 - len(kept), 10)]
    assert {entry["service"] for entry in logs.read_entries(path, service="a", last=100)} <= {"a"}
    assert len(logs.read_entries(path, service=None, last=1)) == 1


def test_following_goes_on_over_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anneal.log"
    monkeypatch.setattr(logs, "MAX_BYTES", 120)
    file = logs.LogFile(path)
    file.write({"service": "a", "msg": "before"})
    seen: list[str] = []
    followed = logs.follow_entries(path, service=None, pause_s=0.01)

    def write() -> None:
        for n in range(20):
            file.write({"service": "a", "msg": f"m{n}"})
            written.wait(0.02)

    written = threading.Event()
    writer = threading.Timer(0.05, write)
    writer.start()
    for entry in followed:
        seen.append(entry["msg"])
        if seen[-1] == "m19":
            break
    writer.join()
    followed.close()  # type: ignore[attr-defined]
    file.close()
    assert seen == [f"m{n}" for n in range(20)]


async def never() -> Running:
    raise AssertionError("not started here")


def test_the_sixth_death_within_a_minute_is_one_too_many() -> None:
    part = Part(name="x", start=never)
    assert not any(part.note_death(n * 10.0) for n in range(MAX_DEATHS))
    assert part.note_death(55.0)


def test_deaths_that_lie_apart_are_forgiven() -> None:
    part = Part(name="x", start=never)
    assert not any(part.note_death(n * 61.0) for n in range(100))
    assert part.pause_s() == 0.2


def test_the_pause_doubles_and_is_bounded() -> None:
    part = Part(name="x", start=never)
    pauses = []
    for n in range(8):
        part.note_death(float(n))
        pauses.append(part.pause_s())
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
