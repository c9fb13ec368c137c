"""`python -m anneal_checkpoint`: the only reader of the environment."""

import os
import sys

from anneal_runtime import logs, service, telemetry
from anneal_runtime.errors import AnnealError
from anneal_runtime.settings import load

from anneal_checkpoint.app import CheckpointApp
from anneal_checkpoint.settings import CheckpointSettings


def main() -> int:
    """Runs until SIGTERM. Returns the exit code; wrong settings are named on stderr."""
    logs.configure("checkpoint", "INFO")
    try:
        settings = load(CheckpointSettings, os.environ)
    except AnnealError as e:
        print(f"checkpoint: {e}", file=sys.stderr)
        return service.EXIT_CONFIG
    logs.configure("checkpoint", settings.log_level)
    telemetry.configure("checkpoint", settings.otlp_endpoint)
    return service.run(lambda: CheckpointApp.create(settings), service="checkpoint")


if __name__ == "__main__":
    sys.exit(main())
