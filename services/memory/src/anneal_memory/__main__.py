"""`python -m anneal_memory`: the only reader of the environment."""

import os
import sys

from anneal_runtime import logs, service, telemetry
from anneal_runtime.errors import AnnealError
from anneal_runtime.settings import load

from anneal_memory.app import MemoryApp
from anneal_memory.settings import MemorySettings


def main() -> int:
    """Runs until SIGTERM. Returns the exit code; wrong settings are named on stderr."""
    logs.configure("memory", "INFO")
    try:
        settings = load(MemorySettings, os.environ)
    except AnnealError as e:
        print(f"memory: {e}", file=sys.stderr)
        return service.EXIT_CONFIG
    logs.configure("memory", settings.log_level)
    telemetry.configure("memory", settings.otlp_endpoint)
    return service.run(lambda: MemoryApp.create(settings), service="memory")


if __name__ == "__main__":
    sys.exit(main())
