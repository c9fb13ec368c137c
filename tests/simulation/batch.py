"""Many runs: some in this process, or all of them in several, and what they went through in sum.

`python -m tests.simulation.batch FIRST COUNT [RULE]` plays COUNT seeds from FIRST on and prints a summary as JSON.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.simulation.rules import Rules, without
from tests.simulation.world import play

ROOT = Path(__file__).resolve().parents[2]
# Failures that a batch tells of: the first are as good as all.
_TOLD = 20


@dataclass
class Summary:
    """What came of a batch. failed: seed, rule, detail. digest: over the heads of all logs, in order of the seeds."""

    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    failures: int = 0
    failed: list[tuple[int, str, str]] = field(default_factory=list)
    visited: Counter[str] = field(default_factory=Counter)
    digest: str = ""

    def add(self, other: "Summary") -> None:
        """The sum of both; the times of processes that ran side by side."""
        self.runs += other.runs
        self.events += other.events
        self.virtual_s += other.virtual_s
        self.cpu_s += other.cpu_s
        self.wall_s = max(self.wall_s, other.wall_s)
        self.failures += other.failures
        self.failed = sorted([*self.failed, *other.failed])[:_TOLD]
        self.visited.update(other.visited)
        self.digest = sha256(f"{self.digest}{other.digest}".encode()).hexdigest()


def play_many(first: int, count: int, rules: Rules | None = None) -> Summary:
    """Plays so many seeds in this process."""
    done, heads = Summary(runs=count), sha256()
    cpu, wall = time.process_time(), time.monotonic()
    for seed in range(first, first + count):
        story = play(seed, rules=rules)
        heads.update(story.head.encode())
        done.events += story.events
        done.virtual_s += story.virtual_s
        done.visited.update(story.visited)
        if story.rule:
            done.failures += 1
            done.failed += [(seed, story.rule, story.detail)] * (len(done.failed) < _TOLD)
    done.cpu_s, done.wall_s = time.process_time() - cpu, time.monotonic() - wall
    done.digest = heads.hexdigest()
    return done


def play_side_by_side(
    first: int, count: int, *, processes: int = 2, rule: str = "", timeout_s: float = 3600
) -> Summary:
    """Plays so many seeds in processes of their own. Raises subprocess.CalledProcessError where one breaks."""
    started, share = time.monotonic(), -(-count // processes)
    children = []
    for n in range(processes):
        mine = min(share, count - n * share)
        if mine > 0:
            call = [sys.executable, "-m", "tests.simulation.batch", str(first + n * share), str(mine)]
            children.append(subprocess.Popen([*call, rule] if rule else call, cwd=ROOT, stdout=subprocess.PIPE))
    whole = Summary()
    try:
        for child in children:
            out, _ = child.communicate(timeout=timeout_s)
            if child.returncode:
                raise subprocess.CalledProcessError(child.returncode, child.args)
            whole.add(_read(out))
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
    whole.wall_s = time.monotonic() - started
    return whole


def _read(out: bytes) -> Summary:
    told = json.loads(out)
    failed = [(int(seed), str(rule), str(detail)) for seed, rule, detail in told.pop("failed")]
    return Summary(**{**told, "failed": failed, "visited": Counter(told["visited"])})


def main(arguments: Sequence[str]) -> None:
    first, count, *broken = arguments
    done = play_many(int(first), int(count), without(broken[0]) if broken else None)
    print(json.dumps(done.__dict__))


if __name__ == "__main__":
    main(sys.argv[1:])
