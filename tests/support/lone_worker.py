"""One worker that carries one command out: `python -m tests.support.lone_worker`, JSON in, what came of it as JSON out.

It has a real bench, a real session and a real ledger; only the bus and the supervisor are left out.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from anneal_contracts.work import Apply
from anneal_runtime.clock import SystemClock
from anneal_runtime.errors import AnnealError
from anneal_runtime.rpc import channel
from anneal_skillkit.bench import Workbench
from anneal_skillkit.loader import discover_skills
from anneal_worker.actions import Actions

SKILLS = Path(__file__).parent / "skills"


async def carried_out(order: dict[str, Any], cache: Path) -> dict[str, Any]:
    """What came of it; an error by its reason."""
    checkpoint, nobody = channel(order["checkpoint"], order["token"]), channel("127.0.0.1:1", order["token"])
    bench = Workbench(
        skills=discover_skills(SKILLS, cache=cache),
        cache=cache,
        supervisor=nobody,
        checkpoint=checkpoint,
        clock=SystemClock(),
    )
    try:
        command = Apply.model_validate(order["command"])
        applied = await Actions(bench).apply(command)
        await bench.settled(command)
        return applied.model_dump(mode="json")
    except AnnealError as e:
        return {"error": e.reason, "message": e.message}
    finally:
        await bench.close()
        await checkpoint.close()
        await nobody.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(carried_out(json.load(sys.stdin), Path(folder)))))
