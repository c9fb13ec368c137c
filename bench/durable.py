"""Durable steps a second: our event append against DBOS, on the same Postgres, with the same payload, in one go.

A step of ours is what the supervisor does for one event: it is chained, and appended by the supervisor's own store in
a transaction that also moves the run's head and checks who drives the run. A step of DBOS is a step of a workflow whose
result is recorded. Rounds are paired and take turns in going first.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import uvloop
from anneal_core import chain
from anneal_runtime.embedded import EmbeddedPostgres, free_port
from anneal_supervisor.store_postgres import PostgresStore

from bench.figures import BenchError, Figure, Peer, Scale, percentile
from bench.host import ROOT

RATE_GOAL: Final = {"p50": 4.0}
P99_GOAL: Final = {"p50": 0.3}
_REQUIREMENTS: Final = ROOT / "requirements" / "bench-dbos.txt"
_TOKEN: Final = "a-token-of-a-throw-away-server"
# As long as an applied action's result in the log is.
PAYLOAD: Final[Mapping[str, Any]] = {
    "type": "command_finished",
    "command_id": "0123456789abcdef0123456789abcdef",
    "result": {"kind": "applied", "state": "applied", "exit_code": 0, "took_s": 0.25, "output": "one line\n" * 60},
}


@dataclass(frozen=True, kw_only=True)
class Round:
    """One side's part of a round."""

    ms: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Steps a second."""
        return len(self.ms) / self.seconds

    @property
    def p99(self) -> float:
        found = percentile(self.ms, 99)
        assert found is not None  # a round has steps
        return found


Side = Callable[[int, int], Round]


def run(scale: Scale) -> Sequence[Figure]:
    """One workflow, then eight at once."""
    rounds, steps = scale.count(7, 2), scale.count(400, 40)
    python = _peer_python(scale)
    with _postgres() as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_check_durable(server))
        runner.run(_make_database(server, "dbos"))
        ours = Ours(runner, server)
        with _peer(python, f"{server.dsn.rpartition('/')[0]}/dbos") as theirs:
            figures = []
            for flows, suffix in ((1, ""), (8, "_8")):
                scale.say(f"{rounds} paired rounds of {flows} at once, {steps} steps each (20 s)")
                pairs = paired(ours.round, theirs, rounds=rounds, flows=flows, steps=steps // flows)
                figures += compared(pairs, suffix)
        ours.check()
        runner.run(_check_peer(server, 2 * (rounds + 1) * steps))
        ours.close()
    return figures


def paired(ours: Side, theirs: Side, *, rounds: int, flows: int, steps: int) -> list[tuple[Round, Round]]:
    """(ours, theirs) of each round. One round more is run first and forgotten: connections, plans and caches."""
    found = []
    for i in range(rounds + 1):
        sides = (ours, theirs) if i % 2 else (theirs, ours)
        done = [side(flows, steps) for side in sides]
        found.append((done[0], done[1]) if i % 2 else (done[1], done[0]))
    return found[1:]


def compared(pairs: Sequence[tuple[Round, Round]], suffix: str) -> list[Figure]:
    """The ratios, and what they are made of."""
    what = "DBOS, steps of a workflow on the same Postgres"
    rates = tuple(tuple(side.rate for side in sides) for sides in zip(*pairs, strict=True))
    steps = tuple(tuple(ms for side in sides for ms in side.ms) for sides in zip(*pairs, strict=True))
    return [
        Figure(
            name=f"rate_ratio_to_dbos{suffix}",
            unit="x",
            values=tuple(o.rate / t.rate for o, t in pairs),
            goal=None if suffix else RATE_GOAL,
            at_least=True,
        ),
        Figure(
            name=f"p99_ratio_to_dbos{suffix}",
            unit="x",
            values=tuple(o.p99 / t.p99 for o, t in pairs),
            goal=None if suffix else P99_GOAL,
        ),
        Figure(name=f"steps_per_s{suffix}", unit="1/s", values=rates[0], peer=Peer(what=what, values=rates[1])),
        Figure(name=f"step_ms{suffix}", unit="ms", values=steps[0], peer=Peer(what=what, values=steps[1])),
    ]


class Ours:
    """The supervisor's store, with a run of its own for each flow of each round."""

    def __init__(self, runner: asyncio.Runner, server: EmbeddedPostgres) -> None:
        self._runner = runner
        self._store = runner.run(PostgresStore.open(server.dsn))
        self._logs: dict[str, int] = {}

    def round(self, flows: int, steps: int) -> Round:
        return self._runner.run(self._round(flows, steps))

    async def _round(self, flows: int, steps: int) -> Round:
        heads = [await self._begun(f"run-{len(self._logs) + i}") for i in range(flows)]
        began = time.perf_counter()
        took = await asyncio.gather(*(self._flow(head, steps) for head in heads))
        seconds = time.perf_counter() - began
        self._logs |= {head.run_id: steps + 1 for head in heads}
        return Round(ms=[ms for one in took for ms in one], seconds=seconds)

    async def _begun(self, run_id: str) -> chain.Event:
        first = _event(run_id, 1, chain.GENESIS)
        await self._store.create_run(run_id, run_id.encode(), [first], b"")
        return first

    async def _flow(self, head: chain.Event, steps: int) -> list[float]:
        took = []
        for _ in range(steps):
            began = time.perf_counter()
            head = _event(head.run_id, head.seq + 1, head.hash)
            await self._store.append([head], [], token=0, summary=None, ended=False)
            took.append((time.perf_counter() - began) * 1000)
        return took

    def check(self) -> None:
        """Raises BenchError unless every log is whole: what was measured was written."""
        for run_id, events in self._logs.items():
            found = chain.verify(self._runner.run(self._store.events(run_id)))
            if not found.ok or found.events != events:
                raise BenchError(f"the log of {run_id} has {found.events} of {events} events: {found.reason}")

    def close(self) -> None:
        self._runner.run(self._store.close())


def _event(run_id: str, seq: int, prev_hash: str) -> chain.Event:
    return chain.link(
        run_id=run_id,
        seq=seq,
        at=time.time(),
        type="command_finished",
        actor="worker",
        payload=dict(PAYLOAD),
        prev_hash=prev_hash,
    )


@contextmanager
def _postgres() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="anneal-bench-"))
    # Open to pass through, so that the server's own user can get in when we are root.
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "postgres", free_port(), _TOKEN)
    try:
        server.start_sync()
        yield server
    finally:
        server.stop_sync()
        server.remove()
        folder.rmdir()


async def _check_durable(server: EmbeddedPostgres) -> None:
    conn = await asyncpg.connect(server.dsn)
    found = {name: await conn.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")}
    await conn.close()
    if set(found.values()) != {"on"}:
        raise BenchError(f"the server is not durable: {found}")


async def _make_database(server: EmbeddedPostgres, name: str) -> None:
    conn = await asyncpg.connect(server.dsn)
    await conn.execute(f"CREATE DATABASE {name}")
    await conn.close()


async def _check_peer(server: EmbeddedPostgres, steps: int) -> None:
    """Raises BenchError unless the peer recorded every step, and no session of its database waits less than ours."""
    conn = await asyncpg.connect(f"{server.dsn.rpartition('/')[0]}/dbos")
    recorded = await conn.fetchval("SELECT count(*) FROM dbos.operation_outputs")
    own = await conn.fetch("SELECT unnest(setconfig) AS set FROM pg_db_role_setting")
    await conn.close()
    if recorded != steps or own:
        raise BenchError(f"DBOS recorded {recorded} of {steps} steps; settings of its own: {[r['set'] for r in own]}")


def _peer_python(scale: Scale) -> Path:
    """A Python with the peer in an environment of its own, made once for each version of its requirements."""
    folder = Path.home() / ".cache" / "anneal" / "bench-dbos"
    wanted, stamp, python = _REQUIREMENTS.read_text(), folder / "stamp", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    scale.say("installing DBOS into an environment of its own (10 s)")
    uv, env = str(ROOT / ".tools" / "bin" / "uv"), {**os.environ, "UV_SYSTEM_CERTS": "1"}
    for command in (
        [uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "sync", "-q", "--require-hashes", "--python", str(python), str(_REQUIREMENTS)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise BenchError(f"DBOS could not be installed: {done.stderr.strip()[-400:]}")
    stamp.write_text(wanted)
    return python


@contextmanager
def _peer(python: Path, dsn: str) -> Iterator[Side]:
    """A running peer, as one side of a round."""
    command = [str(python), str(Path(__file__).with_name("durable_peer.py")), dsn]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        lines, orders = child.stdout, child.stdin

        def said() -> str:
            line = lines.readline()
            if not line:
                errors.seek(0)
                raise BenchError(f"DBOS ended: {errors.read().strip()[-600:]}")
            return line

        def round_of(flows: int, steps: int) -> Round:
            orders.write(json.dumps({"flows": flows, "steps": steps, "payload": dict(PAYLOAD)}) + "\n")
            return Round(**json.loads(said()))

        try:
            said()
            yield round_of
        finally:
            orders.close()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
