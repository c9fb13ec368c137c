"""`python -m anneal_evaluator`: the only reader of the environment."""

import os
import sys

from anneal_runtime import logs, telemetry
from anneal_runtime.errors import AnnealError
from anneal_runtime.service import EXIT_CONFIG, run
from anneal_runtime.settings import load

from anneal_evaluator.app import EvaluatorApp
from anneal_evaluator.settings import EvaluatorSettings


def main() -> int:
    """Runs the service until it is told to stop; returns the exit code."""
    try:
        settings = load(EvaluatorSettings, os.environ)
    except AnnealError as e:
        print(f"anneal-evaluator: {e}", file=sys.stderr)
        return EXIT_CONFIG
    logs.configure("evaluator", settings.log_level)
    telemetry.configure("evaluator", settings.otlp_endpoint)

    async def make() -> EvaluatorApp:
        return EvaluatorApp(settings)

    return run(make, service="evaluator")


if __name__ == "__main__":
    sys.exit(main())
