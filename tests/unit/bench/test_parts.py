"""What benchmarks make of what they read: attempts of a run, memory of a tree, the machine, names of machines."""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import attempt, host, start
from bench.__main__ import BENCHMARKS, main
from bench.machines import abandoned, name_of, uninterrupted

README = Path(host.__file__).with_name("README.md")

RUN: dict[str, Any] = {
    "state": "finished",
    "seconds": 20.0,
    "score": {"fixed": 1},
    "items": [
        {
            "story": [
                {"seconds": 4.0, "parts": {"apply": 1.0, "evaluate": 0.5, "revert": 2.0, "overhead": 0.5}},
                {"seconds": 1.0, "parts": {"apply": 0.5, "evaluate": 0.2, "keep": 0.1, "overhead": 0.2}},
            ]
        },
        {"story": [{"seconds": 0.0, "parts": {"overhead": 0.0}}]},
    ],
}


def test_each_part_of_an_attempt_is_taken_over_the_attempts_that_had_it() -> None:
    found = {figure.name: figure.values for figure in attempt.figures(RUN)}
    assert found == {
        "attempt_s": (4.0, 1.0),
        "apply_s": (1.0, 0.5),
        "evaluate_s": (0.5, 0.2),
        "keep_s": (0.1,),
        "revert_s": (2.0,),
        "overhead_s": (0.5, 0.2),
    }


def test_the_line_on_a_run_gives_the_share_of_each_part() -> None:
    line = attempt.summary(RUN)
    assert "2 items, 2 attempts carried out, 1 fixed, 20 s in all, 5 s of it in attempts" in line
    assert "apply 30%" in line
    assert "revert 40%" in line


def test_memory_is_summed_without_the_model_and_shown_for_each_part() -> None:
    totals = {"rss_mb_without_model": 600.0, "pss_mb_without_model": 400.0, "rss_mb": 850.0}
    parts = [{"name": "gateway", "rss_mb": 80.0}, {"name": "model", "rss_mb": 250.0}]
    found = {f.name: f for f in start.memory_figures([{"totals": totals, "parts": parts}] * 2, suffix="_later")}
    assert found["rss_mb_later"].values == (600.0, 600.0)
    assert found["rss_mb_later"].goal == {"p99": 700.0}
    assert found["pss_mb_later"].values == (400.0, 400.0)
    assert found["rss_mb_later.model"].values == (250.0, 250.0)


@pytest.mark.parametrize(("load", "busy", "warns"), [(0.4, 0.05, False), (1.3, 0.05, True), (0.4, 0.6, True)])
def test_a_busy_machine_is_warned_of(load: float, busy: float, warns: bool) -> None:
    words = host.warning({"load": load, "busy": busy})
    assert bool(words) is warns
    assert not warns or f"load {load:g}" in words


def test_the_machine_is_described_in_full() -> None:
    found = host.machine(0.25)
    assert found["load"] == 0.25
    assert found["cores"] == os.cpu_count()
    assert found["memory_mb"] > 100
    assert found["cpu"]
    assert 0 <= found["busy"] <= 1
    assert host.cpu_model("processor : 0\nmodel name\t: A CPU @ 2 GHz: fast\n") == "A CPU @ 2 GHz: fast"
    assert host.cpu_model("processor : 0\n")


def test_the_commit_is_a_full_hash() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", host.commit())


def test_a_machine_is_abandoned_only_when_the_process_in_its_name_is_no_more() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert abandoned(name_of(ended.pid, "a"))
    assert not abandoned(name_of(os.getpid(), "a"))
    for other in ("baseline", "box", "b12345", "lab", "c0000ffa"):
        assert not abandoned(other)


def test_a_name_is_one_that_the_lab_takes() -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,8}", name_of(2**22, "z"))


def test_cleaning_up_is_not_interrupted_and_what_was_set_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verdict", "no-such"])
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert "no-such" in words
    assert all(name in words for name in BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_run_and_is_described(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").run)
    assert f"| `{name}` |" in README.read_text()
