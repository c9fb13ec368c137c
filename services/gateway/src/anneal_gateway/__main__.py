"""`python -m anneal_gateway`: the only reader of the environment."""

import os
import sys

from anneal_runtime import logs, service, telemetry
from anneal_runtime.errors import AnnealError
from anneal_runtime.settings import load

from anneal_gateway.app import GatewayApp
from anneal_gateway.settings import GatewaySettings


def main() -> int:
    """Runs until SIGTERM. Returns the exit code; wrong settings are named on stderr."""
    logs.configure("gateway", "INFO")
    try:
        settings = load(GatewaySettings, os.environ)
    except AnnealError as e:
        print(f"gateway: {e}", file=sys.stderr)
        return service.EXIT_CONFIG
    logs.configure("gateway", settings.log_level)
    telemetry.configure("gateway", settings.otlp_endpoint)
    return service.run(lambda: GatewayApp.create(settings, dict(os.environ)), service="gateway")


if __name__ == "__main__":
    sys.exit(main())
