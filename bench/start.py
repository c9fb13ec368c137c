"""Cold and warm start of `anneal dev`, and the memory of each process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil
from anneal_runtime.embedded import EmbeddedNats, EmbeddedPostgres, free_port

from bench.figures import Figure, Peer, Scale
from bench.stack import Running, data_folder, dev

GOAL_S: Final = {"p99": 10.0}
GOAL_MB: Final = {"p99": 700.0}
# Memory is looked at when start-up has let go of what it used.
_SETTLE_S: Final = 3.0
_FLOOR: Final = "the floor: the same Postgres and NATS alone, with nothing of ours"


class _Floor:
    """What the embedded servers take by themselves."""

    def __init__(self) -> None:
        self.cold_s: list[float] = []
        self.warm_s: list[float] = []
        self.rss_mb: list[float] = []


def run(scale: Scale) -> Sequence[Figure]:
    """Starts it in new data folders, and again in the last one; the local model included, as `anneal dev` has it."""
    cold, warm, seen = [], [], []
    colds, warms = scale.count(3, 1), scale.count(5, 1)
    for i in range(colds):
        with data_folder() as home:
            scale.say(f"cold start {i + 1} of {colds}, in a new data folder (15 s)")
            with dev(home) as running:
                cold.append(running.start_s)
                seen.append(_memory(running))
            for j in range(warms if i == colds - 1 else 0):
                scale.say(f"warm start {j + 1} of {warms}, in the same folder (12 s)")
                with dev(home) as running:
                    warm.append(running.start_s)
                    seen.append(_memory(running))
    scale.say("Postgres and NATS alone (15 s)")
    floor = asyncio.run(_floor(colds, warms))
    return [
        Figure(name="cold_start_s", unit="s", values=tuple(cold), peer=_peer(floor.cold_s)),
        Figure(name="warm_start_s", unit="s", values=tuple(warm), goal=GOAL_S, peer=_peer(floor.warm_s)),
        *memory_figures(seen, peer=_peer(floor.rss_mb)),
    ]


def memory_figures(seen: Sequence[dict[str, Any]], *, suffix: str = "", peer: Peer | None = None) -> list[Figure]:
    """From answers of `anneal dev status`: all without the model, then shared pages once, then each part."""
    totals = [status["totals"] for status in seen]
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for status in seen:
        for row in status["parts"]:
            parts[row["name"]].append(row["rss_mb"])
    return [
        Figure(name=f"rss_mb{suffix}", unit="MB", values=_all(totals, "rss_mb_without_model"), goal=GOAL_MB, peer=peer),
        Figure(name=f"pss_mb{suffix}", unit="MB", values=_all(totals, "pss_mb_without_model")),
        *(Figure(name=f"rss_mb{suffix}.{name}", unit="MB", values=tuple(sizes)) for name, sizes in parts.items()),
    ]


def _all(rows: Sequence[dict[str, Any]], key: str) -> tuple[float, ...]:
    return tuple(row[key] for row in rows)


def _memory(running: Running) -> dict[str, Any]:
    time.sleep(_SETTLE_S)
    return running.memory()


def _peer(values: Sequence[float]) -> Peer:
    return Peer(what=_FLOOR, values=tuple(values))


async def _floor(colds: int, warms: int) -> _Floor:
    floor = _Floor()
    for i in range(colds):
        with data_folder() as home:
            floor.cold_s.append(await _servers(home, floor))
            for _ in range(warms if i == colds - 1 else 0):
                floor.warm_s.append(await _servers(home, floor))
    return floor


async def _servers(home: Path, floor: _Floor) -> float:
    """Seconds until both take connections, started at once as `anneal dev` does."""
    token = "of-a-throw-away-server"
    postgres = EmbeddedPostgres(home / "postgres", free_port(), token)
    nats = EmbeddedNats(home / "nats", free_port(), token)
    began = time.monotonic()
    try:
        await asyncio.gather(postgres.start(), nats.start())
        took = time.monotonic() - began
        await asyncio.sleep(_SETTLE_S)
        floor.rss_mb.append(_family_mb(postgres.pid) + _family_mb(nats.pid))
        return took
    finally:
        await postgres.stop()
        await nats.stop()


def _family_mb(pid: int) -> float:
    """Resident memory of a process and all below it, in MB."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(member.memory_info().rss for member in family)) / 1e6
