"""`python -m tests.simulation [--runs N] [--seed S] [--without RULE]`: random runs, what they visited, and failures.

One seed alone is told in full where it fails. Exit code 0: all invariants held; 1: one did not.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import fields

from tests.simulation.batch import Summary, play_side_by_side
from tests.simulation.rules import Rules, without
from tests.simulation.story import shrink, told

# First word of what was visited -> heading.
_KINDS = {
    "run": "runs ended",
    "item": "items ended",
    "attempt": "attempts ended",
    "mode": "modes",
    "also": "besides",
    "command": "commands",
    "event": "events",
    "dies": "died",
    "stands still": "stood still",
    "fault": "faults by family",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description="Plays random runs of the real core.")
    parser.add_argument("--runs", type=int, default=5000, help="how many (default 5000)")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (default: a random one)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (default 2)")
    names = [f.name for f in fields(Rules)]
    parser.add_argument(
        "--without", choices=names, default="", metavar="RULE", help=f"break one of: {', '.join(names)}"
    )
    given = parser.parse_args()
    # A seed is easier to hand on when it is short.
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**9)
    done = play_side_by_side(seed, given.runs, processes=given.processes, rule=given.without)
    print("\n".join(table(seed, done)))
    if not done.failed:
        return 0
    for failed, rule, detail in done.failed:
        print(f"FAILED seed {failed}: {rule}: {detail}")
    print("\nthe first of them, made smaller:\n")
    print(told(shrink(done.failed[0][0], without(given.without) if given.without else None)))
    broken = f" WITHOUT={given.without}" if given.without else ""
    print(f"\nagain: make simulate N=1 SEED={done.failed[0][0]}{broken}")
    return 1


def table(seed: int, done: Summary) -> Iterator[str]:
    """The report."""
    per_minute = 60 * done.runs / done.wall_s
    yield f"{done.runs} runs from seed {seed} on: {per_minute:.0f} a minute ({done.wall_s:.0f} s)"
    hours = done.virtual_s / 3600
    yield f"{1000 * done.cpu_s / done.runs:.1f} ms CPU a run, {done.events} events, {hours:.0f} h of virtual time"
    for kind, heading in _KINDS.items():
        found = {k.removeprefix(f"{kind} "): n for k, n in done.visited.items() if k.startswith(f"{kind} ")}
        said = ", ".join(f"{name} {n}" for name, n in sorted(found.items(), key=lambda e: (-e[1], e[0])))
        yield f"  {heading:<17} {said or 'none'}"
    yield f"{done.failures} failed; digest of all logs {done.digest[:16]}"


if __name__ == "__main__":
    sys.exit(main())
