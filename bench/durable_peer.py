"""The peer of bench durable: steps of DBOS workflows, timed. Run by a Python that has dbos and nothing of ours.

Standard input has one order a line, {"flows", "steps", "payload"}; the answer is a line with the milliseconds of each
step and the seconds of all. A workflow's step is its function's call, result recorded.
"""

import importlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def main(dsn: str) -> None:
    # dbos is not among what the project installs: no types, and no import before there is a peer.
    dbos: Any = importlib.import_module("dbos")
    # One thread of its own for each workflow of the widest round.
    dbos.DBOS(config={"name": "bench", "system_database_url": dsn, "log_level": "ERROR", "max_executor_threads": 16})

    @dbos.DBOS.step()  # type: ignore[untyped-decorator]
    def step(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    @dbos.DBOS.workflow()  # type: ignore[untyped-decorator]
    def flow(steps: int, payload: dict[str, Any]) -> list[float]:
        took = []
        for _ in range(steps):
            began = time.perf_counter()
            step(payload)
            took.append((time.perf_counter() - began) * 1000)
        return took

    dbos.DBOS.launch()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        with ThreadPoolExecutor(order["flows"]) as pool:
            began = time.perf_counter()
            flows = [pool.submit(flow, order["steps"], order["payload"]) for _ in range(order["flows"])]
            took = [ms for one in flows for ms in one.result()]
            print(json.dumps({"ms": took, "seconds": time.perf_counter() - began}), flush=True)
    dbos.DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1])
