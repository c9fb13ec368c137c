"""`python -m bench [NAME]...`: runs these benchmarks, or all; prints a table each and writes bench/out/NAME.json."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from anneal_lab import LabError
from anneal_runtime.errors import AnnealError

from bench import host
from bench.figures import BenchError, Figure, Scale, document, table, write

# Name -> what it measures; the module of that name has run(scale) -> figures.
BENCHMARKS = {
    "verdict": "one rule's verdict, against stock oscap (2 min)",
    "start": "cold and warm start of anneal dev, memory by process (2 min)",
    "attempt": "where the time of an attempt goes, in a real run (1.5 min)",
    "harness": "what an attempt costs beside target and model: stubs, all else real (1.5 min)",
    "durable": "durable steps a second, against DBOS on the same Postgres (1 min)",
    "snapshot": "snapshot and revert, by the lab and through checkpoint (2.5 min)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured, whatever the figures say; 1: something could not be measured; 130: interrupted."""
    names, quick = _parse(arguments)
    # A TERM ends us as Ctrl-C does: through the blocks that clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    at_start = host.load()
    failed = []
    try:
        for name in names:
            try:
                _one(name, at_start, quick=quick)
            except (BenchError, LabError, AnnealError) as e:
                print(f"{name}: not measured: {e}", file=sys.stderr)
                failed.append(name)
    except KeyboardInterrupt:
        print("interrupted; nothing is left behind", file=sys.stderr)
        return 130
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> tuple[list[str], bool]:
    listed = "\n".join(f"  {name:<10}{what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures anneal on this machine.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="measure little, to see that it works; file NAME.quick.json"
    )
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name!r}; known: {', '.join(BENCHMARKS)}")
    return given.names or list(BENCHMARKS), given.quick


def _one(name: str, load_at_start: float, *, quick: bool) -> None:
    machine, commit = host.machine(load_at_start), host.commit()
    print(f"\n==> {name}: {BENCHMARKS[name]}", flush=True)
    warning = host.warning(machine)
    if warning:
        print(warning, flush=True)
    scale = Scale(quick=quick, say=lambda line: print(f"    {line}", flush=True))
    figures: Sequence[Figure] = importlib.import_module(f"bench.{name}").run(scale)
    path = write(document(name, machine, commit, figures), quick=quick)
    print(f"\n{table(figures)}\n{path.relative_to(host.ROOT)}")
    if warning:
        print(warning, flush=True)


if __name__ == "__main__":
    sys.exit(main())
