"""The model rung end to end: whatever a model answers, the run ends as designed and only harmless scripts ever ran."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator

import pytest
from anneal_lab import Lab

from tests.support.model_server import Behaviour, ModelServer
from tests.support.stack import DEFAULT_HOME, SKILLS, Anneal, make_anneal

RIGHT = {"by-model": "#!/bin/bash\nset -euo pipefail\nmkdir -p /etc/scratch\necho by-model > /etc/scratch/by-model\n"}

# Behaviour, final state, words in the reason, attempts. The broken server comes last: it opens the circuit.
CASES = [
    (Behaviour.DELETES_ROOT, "escalated", "policy_denied", 0),
    (Behaviour.DISABLES_SSHD, "escalated", "policy_denied", 0),
    (Behaviour.EDITS_CHECKER, "escalated", "policy_denied", 0),
    (Behaviour.EXITS_ZERO, "escalated", "contract_violation", 0),
    (Behaviour.MALFORMED, "escalated", "contract_violation", 0),
    (Behaviour.TOOL_CALL, "escalated", "contract_violation", 0),
    (Behaviour.MISSING_INPUT, "escalated", "missing_input", 0),
    (Behaviour.WRONG, "escalated", "attempts failed", 1),
    (Behaviour.TRUNCATED, "completed", "", 1),
    (Behaviour.THINKS_ALOUD, "completed", "", 1),
    (Behaviour.SLOW, "completed", "", 1),
    (Behaviour.GOOD, "completed", "", 1),
    (Behaviour.DOWN, "escalated", "model", 0),
]


@pytest.fixture(scope="module")
def model_port() -> int:
    """A port that is free now; the server of each test takes it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def authoring(tmp_path_factory: pytest.TempPathFactory, lab: Lab, model_port: int) -> Iterator[Anneal]:
    """anneal with a model that may author, and a target `author` of its own."""
    url = f"http://127.0.0.1:{model_port}/v1"
    options = ("--model-url", url, "--model", "scripted")
    running = make_anneal(tmp_path_factory.mktemp("home"), *options, skills=[SKILLS / "scratch"])
    lab.clone("", "author")
    try:
        assert running.cli("target", "add", "author", "--lab", "author").code == 0
        yield running
    finally:
        running.stop()
        lab.delete("author")


@pytest.mark.parametrize(("behaviour", "state", "words", "attempts"), CASES, ids=[c[0].value for c in CASES])
async def test_a_run_ends_as_designed_when_the_model(
    behaviour: Behaviour,
    state: str,
    words: str,
    attempts: int,
    authoring: Anneal,
    model_port: int,
) -> None:
    async with ModelServer(behaviour, scripts=RIGHT, port=model_port):
        args = ("scratch", "--target", "author", "--profile", "model", "--no-memory")
        run = await asyncio.to_thread(authoring.run, *args)
    assert run["state"] == "finished", run["reason"]
    (item,) = run["items"]
    assert item["state"] == state, item["reason"]
    assert words in item["reason"]
    assert len(item["story"]) == attempts
    if state == "completed":
        assert item["rung"] == "model"
        assert run["tokens"] > 0
        # So that the next model finds the item failing again.
        await asyncio.to_thread(_on_author, "rm -rf /etc/scratch")


def _on_author(script: str) -> None:
    """Runs a script as root on the machine, from outside; fails where it fails."""
    subprocess.run([*Lab(DEFAULT_HOME / "lab").console("author"), "sh", "-c", script], check=True, timeout=20)


def test_nothing_that_a_hostile_model_wrote_is_on_the_machine(authoring: Anneal, lab: Lab) -> None:
    _on_author("systemctl is-active sshd >/dev/null && test -d /usr && test ! -e /var/tmp/anneal-wrong")
