"""kill -9 of any one service in the middle of a run: it is started again, and the run ends with a right score."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.support.stack import Anneal


def wait_for_progress(anneal: Anneal, run_id: str, done: int) -> None:
    for _ in range(200):
        run = anneal.cli("show", run_id, "--json")
        if run.code == 0 and sum(i["state"] == "completed" for i in run.json()["items"]) >= done:
            return
        time.sleep(0.1)
    raise AssertionError("the run made no progress")


@pytest.mark.parametrize(
    "service", ["gateway", "supervisor", "worker", "evaluator", "memory", "checkpoint", "nats", "postgres"]
)
@pytest.mark.timeout(180)
def test_a_run_survives_the_kill_of(service: str, anneal: Anneal, box: str, on_machine: Callable[[str], str]) -> None:
    args = ["run", "scratch", "--target", box, "--profile", "kills", "--json", "--no-watch", "--no-memory"]
    run_id = anneal.cli(*args).json()["run_id"]
    wait_for_progress(anneal, run_id, 2)
    before = anneal.part(service)
    os.kill(before["pid"], signal.SIGKILL)
    run = anneal.finished(run_id, timeout=120)
    assert run["state"] == "finished", run["reason"]
    assert run["score"]["after"]["pass"] == 6, anneal.log_tail()
    assert run["score"]["fixed"] == 6
    assert anneal.part(service)["pid"] != before["pid"]
    counts = on_machine("for i in 1 2 3 4 5 6; do wc -l < /etc/scratch/k0$i.count; done").split()
    assert counts == ["1"] * 6
    assert anneal.cli("audit", "verify", run_id).code == 0
