"""`anneal dev` as it is, but with fakes for the six services: `python dev_with_fakes.py HOME PORT_BASE`."""

import sys
from pathlib import Path

from anneal_cli import __main__ as entry
from anneal_cli.dev import plan, tree

_FAKE = Path(__file__).with_name("fake_service.py")


def main() -> int:
    # The rules stay, the waiting is cut short.
    tree.FIRST_PAUSE_S, tree.STOP_GRACE_S = 0.05, 0.5
    plan.Plan.command = lambda self, service: [sys.executable, str(_FAKE), service]  # type: ignore[method-assign]
    home, base = sys.argv[1:3]
    return entry.run(["--home", home, "dev", "--no-model", "--port-base", base, *sys.argv[3:]])


if __name__ == "__main__":
    sys.exit(main())
