"""`python -m anneal_worker`: the only reader of the environment."""

import os
import sys

from anneal_runtime import logs, telemetry
from anneal_runtime.errors import AnnealError
from anneal_runtime.service import EXIT_CONFIG, run
from anneal_runtime.settings import load

from anneal_worker.app import WorkerApp
from anneal_worker.settings import WorkerSettings


def main() -> int:
    """Runs the service until it is told to stop; returns the exit code."""
    try:
        settings = load(WorkerSettings, os.environ)
    except AnnealError as e:
        print(f"anneal-worker: {e}", file=sys.stderr)
        return EXIT_CONFIG
    logs.configure("worker", settings.log_level)
    telemetry.configure("worker", settings.otlp_endpoint)

    async def make() -> WorkerApp:
        return WorkerApp(settings)

    return run(make, service="worker")


if __name__ == "__main__":
    sys.exit(main())
