"""Logs that earlier versions wrote are folded and decided today as they were then."""

from pathlib import Path

import pytest
from anneal_core import chain
from anneal_core.replay import replay

GOLDEN = Path(__file__).parent / "golden"


def log(path: Path) -> list[chain.Event]:
    return [chain.Event.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda p: p.stem)
def test_a_log_of_an_earlier_version_is_decided_the_same(path: Path) -> None:
    events = log(path)
    assert chain.verify(events).ok
    found = replay(events)
    assert found.difference is None
    assert found.state.ended and found.decisions > 20


def test_the_logs_hold_what_the_engine_knows() -> None:
    types = {event.type for path in GOLDEN.glob("*.jsonl") for event in log(path)}
    assert types >= {
        "approval_asked",
        "approval_answered",
        "gate_failed",
        "goal_assessed",
        "pause_requested",
        "wave_closed",
    }
    engines = {log(path)[0].payload.get("engine", 1) for path in GOLDEN.glob("*.jsonl")}
    assert engines == {1, 2}
