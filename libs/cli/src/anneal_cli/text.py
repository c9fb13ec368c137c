"""Small pieces of text that several commands need."""

from datetime import datetime

from anneal.common.v1.common_pb2 import ScoreCounts
from anneal.supervisor.v1.supervisor_pb2 import Run
from google.protobuf.timestamp_pb2 import Timestamp

ENDED = frozenset({"finished", "cancelled", "failed"})
# Item states in the order in which they are told; glyphs keep them apart without colour.
STATES: dict[str, tuple[str, str]] = {
    "completed": ("■", "green"),
    "active": ("◆", "bold cyan"),
    "waiting": ("?", "bold yellow"),
    "escalated": ("▲", "dark_orange"),
    "deferred": ("◐", "blue"),
    "queued": ("·", "bright_black"),
    "skipped": ("-", "dim"),
}
UNKNOWN_STATE = ("¿", "magenta")


def when(stamp: Timestamp) -> str:
    """Local date and time; a dash where there is none."""
    if not stamp.seconds:
        return "-"
    return datetime.fromtimestamp(stamp.seconds).strftime("%Y-%m-%d %H:%M:%S")


def counts(score: ScoreCounts) -> str:
    """Counts of one scan in words."""
    parts = [
        f"{score.__getattribute__(name)} {word}"
        for name, word in _COUNT_WORDS
        if getattr(score, name) or name in ("pass", "fail")
    ]
    return ", ".join(parts)


_COUNT_WORDS = (
    ("pass", "pass"),
    ("fail", "fail"),
    ("error", "error"),
    ("notapplicable", "not applicable"),
    ("other", "other"),
)


def tally(run: Run) -> dict[str, int]:
    """How many items are in each state, in the order of STATES."""
    found = {state: sum(1 for item in run.items if item.state == state) for state in STATES}
    return {state: number for state, number in found.items() if number}


def has_ended(run: Run) -> bool:
    return run.state in ENDED


def short_id(run_id: str) -> str:
    """Enough of an id to tell runs apart by eye."""
    return run_id if len(run_id) <= 16 else run_id[:12]
