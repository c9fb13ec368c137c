"""`python -m anneal_supervisor`: the only reader of the environment."""

import os
import sys

from anneal_runtime import logs, telemetry
from anneal_runtime.errors import AnnealError
from anneal_runtime.service import EXIT_CONFIG, run
from anneal_runtime.settings import load

from anneal_supervisor.app import SupervisorApp
from anneal_supervisor.settings import SupervisorSettings


def main() -> int:
    """Runs the service until it is told to stop; returns the exit code."""
    try:
        settings = load(SupervisorSettings, os.environ)
    except AnnealError as e:
        print(f"anneal-supervisor: {e}", file=sys.stderr)
        return EXIT_CONFIG
    logs.configure("supervisor", settings.log_level)
    telemetry.configure("supervisor", settings.otlp_endpoint)

    async def make() -> SupervisorApp:
        return SupervisorApp(settings)

    return run(make, service="supervisor")


if __name__ == "__main__":
    sys.exit(main())
