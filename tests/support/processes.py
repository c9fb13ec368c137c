"""A service as a real process: `python -m anneal_<service>` in an environment of its own, awaited by its health."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from anneal_runtime.children import free_port
from anneal_runtime.errors import AnnealError
from anneal_runtime.rpc import channel
from anneal_runtime.testing import eventually
from grpc_health.v1 import health_pb2, health_pb2_grpc


@dataclass
class ServiceProcess:
    """A running service. wire carries the token; stderr is read by ended()."""

    child: asyncio.subprocess.Process
    wire: grpc.aio.Channel
    address: str

    def rss_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        pages = int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    async def stop(self) -> tuple[int, str]:
        """SIGTERM; exit code and all that was written to standard error."""
        self.child.terminate()
        return await self.ended()

    async def ended(self) -> tuple[int, str]:
        """Exit code and standard error of a process that ends by itself."""
        _, stderr = await asyncio.wait_for(self.child.communicate(), 20)
        return self.child.returncode or 0, stderr.decode()


@asynccontextmanager
async def service_process(
    service: str, token: str, settings: Mapping[str, str], *, ready: bool = True
) -> AsyncIterator[ServiceProcess]:
    """Starts anneal_<service>; settings are keys without the prefix. ready: wait until health says serving."""
    address = f"127.0.0.1:{free_port()}"
    env = {"PATH": os.environ["PATH"], "ANNEAL_LISTEN": address, "ANNEAL_AUTH_TOKEN": token}
    env |= {f"ANNEAL_{name}": value for name, value in settings.items()}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"anneal_{service}", env=env, stderr=asyncio.subprocess.PIPE
    )
    wire = channel(address, token)
    try:
        if ready:
            await eventually(lambda: _serves(wire), timeout=20)
        yield ServiceProcess(child, wire, address)
    finally:
        await wire.close()
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def _serves(wire: grpc.aio.Channel) -> bool:
    try:
        answer = await health_pb2_grpc.HealthStub(wire).Check(health_pb2.HealthCheckRequest(), timeout=1)
    except AnnealError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
