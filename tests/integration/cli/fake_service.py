"""Stands for a service under `anneal dev`: says that it serves. FAKE_<NAME> in the environment makes it misbehave.

Run as `python fake_service.py NAME`. Values: crash (ends at once), config (ends with 78), deaf (ignores SIGTERM),
family (leaves a helper of its own behind).
"""

import asyncio
import json
import os
import signal
import sys
import time

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


async def main(name: str) -> int:
    fault = os.environ.get(f"FAKE_{name.upper()}", "")
    print(json.dumps({"ts": time.time(), "level": "INFO", "service": name, "msg": f"hello from {name}"}), flush=True)
    if fault in ("crash", "config"):
        print(f"{name} gives up: the moon is full", flush=True)
        return 78 if fault == "config" else 1
    if fault == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fault == "family":
        await asyncio.create_subprocess_exec("sleep", "300")
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ["ANNEAL_LISTEN"])
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
