"""`python -m bench.stub.dev dev ...`: the `anneal` command, with stubs where the services meet a target."""

import os
import sys
from pathlib import Path

from anneal_cli import __main__ as entry
from anneal_cli.dev import plan

# A folder that gets a cProfile file of each service; unset: nothing is profiled. A profile costs time: no figures then.
PROFILE = "ANNEAL_BENCH_PROFILE"
_AT_A_TARGET = frozenset({"worker", "evaluator", "checkpoint"})


def command(self: plan.Plan, service: str) -> list[str]:
    """What starts a service: the real program, or the one over the stubs."""
    folder = os.environ.get(PROFILE)
    profiled = ["-m", "cProfile", "-o", str(Path(folder) / f"{service}.prof")] if folder else []
    program = ["bench.stub.service", service] if service in _AT_A_TARGET else [f"anneal_{service}"]
    return [sys.executable, *profiled, "-m", *program]


def main() -> int:
    """Exit code as of the `anneal` command."""
    plan.Plan.command = command  # type: ignore[method-assign]
    return entry.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
