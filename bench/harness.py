"""What an attempt costs beside its target and its model: all six processes, real Postgres, NATS and gRPC, stubs beyond.

Counted from the run's own log. An attempt lasts from the end of the one before it (the first: from the queue) to its
own end: the item's, where it was the item's last. So they fill the whole loop, and no step of ours can hide between
two of them. Nothing is taken out: what the stubs themselves take counts against us.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_runtime.rpc import channel

from bench.figures import BenchError, Figure, Scale
from bench.stack import Running, data_folder, dev
from bench.stub.model import model

GOAL_MS: Final = {"p50": 10.0, "p99": 40.0}
SKILLS: Final = Path(__file__).parent / "stub" / "skills"
# What becomes of the stub skill's items (see its runtime.py), and of the four attempts that each 20 items differ by.
_ENDS: Final = {"kept": "completed", "second": "completed", "model": "completed", "given-up": "escalated"}
_ENDED: Final = frozenset({"finished", "failed", "cancelled"})
_LOOK_S: Final = 0.25
_RUN_S: Final = 300.0
# Command -> the part of an attempt whose two halves it is: the way there and back, and the doer's own time.
_PARTS: Final = {"apply": "apply", "evaluate": "evaluate", "snapshot": "keep"}


@dataclass(frozen=True, kw_only=True)
class Span:
    """One attempt in the log. parts: seconds by part, `way` and doer apart; what is left of the whole is `select`."""

    kind: str
    seconds: float
    parts: Mapping[str, float]


@dataclass(kw_only=True)
class _Open:
    """An attempt whose end is not read yet."""

    began: float
    ended: float = 0.0
    kind: str = ""
    by_model: bool = False
    parts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def span(self) -> Span:
        seconds = self.ended - self.began
        parts = {**self.parts, "select": max(0.0, seconds - sum(self.parts.values()))}
        return Span(kind="model" if self.by_model and self.kind == "kept" else self.kind, seconds=seconds, parts=parts)


def spans(events: Iterable[Mapping[str, Any]]) -> list[Span]:
    """The attempts of a log. A model turn that led to no script is one as well: it counts against the item's limit."""
    found: list[Span] = []
    issued: dict[str, tuple[str, float]] = {}
    now: _Open | None = None
    for event in events:
        at, payload = event["at"], event["payload"]
        match event["type"]:
            case "items_queued":
                now = _Open(began=at)
            case "command_issued":
                issued[payload["command_id"]] = (payload["kind"], at)
            case "command_finished" if now is not None:
                kind, since = issued.pop(payload["command_id"])
                now = _took(found, now, kind, at - since, at, payload["result"])
            case "attempt_ended" if now is not None:
                now.ended, now.kind = at, "kept" if payload["ending"] == "kept" else "reverted"
                now = _closed(found, now)
            case "item_closed" if found and now is not None and not now.parts:
                # It ends with its last attempt, of which it is a part.
                extra = at - now.began
                last = found[-1]
                parts = {**last.parts, "select": last.parts["select"] + extra}
                found[-1] = Span(kind=last.kind, seconds=last.seconds + extra, parts=parts)
                now = _Open(began=at)
    return found


def _took(found: list[Span], now: _Open, kind: str, waited: float, at: float, result: Mapping[str, Any]) -> _Open:
    if part := _PARTS.get(kind):
        now.parts[f"{part}_doer"] += result["took_s"]
        now.parts[f"{part}_way"] += max(0.0, waited - result["took_s"])
    elif kind in ("propose", "restore", "check_health"):
        now.parts[kind] += waited
    if kind == "propose":
        now.by_model = True
        if result.get("candidate") is None:
            now.ended, now.kind = at, "turn"
            return _closed(found, now)
    return now


def _closed(found: list[Span], now: _Open) -> _Open:
    found.append(now.span())
    return _Open(began=now.ended)


def run(scale: Scale) -> Sequence[Figure]:
    """Runs the stub skill's items to the end, after a dry run that warms the processes up and prices the plan."""
    profile, rounds = ("few", 1) if scale.quick else ("many", 3)
    found: list[Span] = []
    cpu: defaultdict[str, list[float]] = defaultdict(list)
    sizes: list[float] = []
    with model() as url, data_folder() as home:
        options = ("--model-url", url, "--model", "stub")
        with dev(home, *options, module="bench.stub.dev", skills=SKILLS) as running:
            asyncio.run(_add_target(running))
            for i in range(rounds):
                scale.say(f"run {i + 1} of {rounds} (10 s)")
                one = _round(running, home, profile)
                found += one.attempts
                sizes.append(one.log_kb)
                for part, used in one.cpu_s.items():
                    cpu[part].append(used * 1000 / len(one.attempts))
    return [*figures(found), *_costs(cpu, sizes)]


@dataclass(frozen=True, kw_only=True)
class _Round:
    """One run: its attempts, the processor time of each part for all of them, and the log an attempt."""

    attempts: Sequence[Span]
    cpu_s: Mapping[str, float]
    log_kb: float


def _round(running: Running, home: Path, profile: str) -> _Round:
    """The processor time of the dry run, which does all but the attempts, is taken off that of the run."""
    before = _cpu_s(running)
    asyncio.run(_run(running, profile, dry_run=True))
    between = _cpu_s(running)
    run_id = asyncio.run(_run(running, profile, dry_run=False))
    after = _cpu_s(running)
    lines = _log(running, home, run_id)
    events = [json.loads(line) for line in lines]
    attempts = spans(events)
    _check(events, attempts)
    queued = next(i for i, event in enumerate(events) if event["type"] == "items_queued") + 1
    return _Round(
        attempts=attempts,
        cpu_s={part: after[part] - 2 * between[part] + before[part] for part in after},
        log_kb=sum(map(len, lines[queued:])) / 1000 / len(attempts),
    )


def figures(found: Sequence[Span]) -> list[Figure]:
    """All attempts, each kind of them, and the parts of the plain kind."""
    kinds = sorted({span.kind for span in found})
    plain = [span for span in found if span.kind == "kept"]
    parts = sorted({part for span in plain for part in span.parts})
    return [
        Figure(name="harness_attempt_ms", unit="ms", values=_ms(span.seconds for span in found), goal=GOAL_MS),
        *(
            Figure(name=f"harness_attempt_ms.{kind}", unit="ms", values=_ms(s.seconds for s in found if s.kind == kind))
            for kind in kinds
        ),
        *(
            Figure(name=f"part_ms.{part}", unit="ms", values=_ms(s.parts.get(part, 0.0) for s in plain))
            for part in parts
        ),
    ]


def _costs(cpu: Mapping[str, Sequence[float]], sizes: Sequence[float]) -> list[Figure]:
    total = tuple(map(sum, zip(*cpu.values(), strict=True)))
    return [
        Figure(name="cpu_ms", unit="ms", values=total),
        *(Figure(name=f"cpu_ms.{part}", unit="ms", values=tuple(values)) for part, values in cpu.items()),
        Figure(name="log_kb", unit="kB", values=tuple(sizes), goal={"p99": 8.0}),
    ]


def _ms(seconds: Iterable[float]) -> tuple[float, ...]:
    return tuple(s * 1000 for s in seconds)


def _check(events: Sequence[Mapping[str, Any]], attempts: Sequence[Span]) -> None:
    """Raises BenchError where the run was not the one that was to be measured: an error path is fast."""
    closed = {e["payload"]["item_id"]: e["payload"] for e in events if e["type"] == "item_closed"}
    odd = [f"{i}: {p['state']} ({p['reason']})" for i, p in closed.items() if p["state"] != _ENDS[i.rpartition("-")[0]]]
    if odd or not closed:
        raise BenchError(f"{len(odd)} of {len(closed)} items ended otherwise than they should: {odd[:3]}")
    twenty = len(closed) / 20
    expected = {"kept": 18 * twenty, "model": twenty, "reverted": 3 * twenty}
    counted = {kind: sum(span.kind == kind for span in attempts) for kind in expected}
    if counted != expected:
        raise BenchError(f"the log shows these attempts: {counted}; expected: {expected}")


async def _add_target(running: Running) -> None:
    wire = channel(running.address("checkpoint"), running.token)
    target = cp.Target(name="box", driver="nspawn", machine="stub")
    await CheckpointServiceStub(wire).AddTarget(cp.AddTargetRequest(idempotency_key="add", target=target))
    await wire.close()


async def _run(running: Running, profile: str, *, dry_run: bool) -> str:
    """Runs the skill to its end, which is looked for in its small summary; returns its id. Raises BenchError."""
    wire = channel(running.address("supervisor"), running.token)
    try:
        stub = SupervisorServiceStub(wire)
        spec = sup.RunSpec(skill="stub", target="box", profile=profile, dry_run=dry_run, no_memory=True)
        asked = sup.CreateRunRequest(idempotency_key=f"{asyncio.get_running_loop().time()}", spec=spec)
        run_id: str = (await stub.CreateRun(asked)).run_id
        async with asyncio.timeout(_RUN_S):
            while True:
                await asyncio.sleep(_LOOK_S)
                (shown,) = (await stub.ListRuns(sup.ListRunsRequest(limit=1))).runs
                if shown.state in _ENDED:
                    break
        if shown.state != "finished":
            raise BenchError(f"the run ended as {shown.state}: {shown.reason}")
        return run_id
    except TimeoutError as e:
        raise BenchError(f"the run did not end within {_RUN_S:g} s") from e
    finally:
        await wire.close()


def _log(running: Running, home: Path, run_id: str) -> list[str]:
    """The run's log, exported and verified."""
    file = home / f"{run_id}.jsonl"
    for words in (("report", run_id, "-o", str(file)), ("audit", "verify", run_id)):
        done = running.anneal.cli(*words)
        if done.code != 0:
            raise BenchError(f"anneal {words[0]} ended with {done.code}: {done.err.strip()[-400:]}")
    return file.read_text().splitlines()


def _cpu_s(running: Running) -> dict[str, float]:
    """Seconds of processor time that each part has used so far, with all processes below it."""
    return {row["name"]: _used(row["pid"]) for row in running.memory()["parts"] if row["name"] != "dev"}


def _used(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(sum(member.cpu_times()[:2]) for member in (process, *process.children(recursive=True)))
