"""All services but the gateway in this process, over real gRPC, NATS and Postgres; only the machine is a stub."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anneal_checkpoint.app import CheckpointApp
from anneal_checkpoint.model import DriverKind
from anneal_checkpoint.settings import CheckpointSettings
from anneal_evaluator.app import EvaluatorApp
from anneal_evaluator.settings import EvaluatorSettings
from anneal_memory.app import MemoryApp
from anneal_memory.settings import MemorySettings
from anneal_runtime.children import free_port
from anneal_runtime.service import App
from anneal_runtime.settings import load
from anneal_supervisor.app import SupervisorApp
from anneal_supervisor.settings import SupervisorSettings
from anneal_worker.app import WorkerApp
from anneal_worker.settings import WorkerSettings

from bench.stub.service import StubDriver, StubSessions

STUB_SKILLS: Final = Path(__file__).parents[2] / "bench" / "stub" / "skills"
NAMES: Final = ("supervisor", "worker", "evaluator", "memory", "checkpoint")


def environment(dsn: str, nats_url: str, token: str, home: Path) -> dict[str, str]:
    """What all services are told, with a port for each. Without a gateway no model writes anything."""
    ports = {name: free_port() for name in NAMES}
    return {
        "ANNEAL_POSTGRES_DSN": dsn,
        "ANNEAL_NATS_URL": nats_url,
        "ANNEAL_AUTH_TOKEN": token,
        "ANNEAL_SHUTDOWN_GRACE_S": "1",
        "ANNEAL_GATEWAY_URL": "http://127.0.0.1:1",
        "ANNEAL_SKILLS_DIR": str(STUB_SKILLS),
        "ANNEAL_HOME": str(home),
        **{f"ANNEAL_{name.upper()}_ADDR": f"127.0.0.1:{port}" for name, port in ports.items()},
        **{f"ANNEAL_{name.upper()}_LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()},
    }


def told(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """One service's part: without the address of its own name, which it would take for a setting that it lacks."""
    return {key: value for key, value in environ.items() if key != f"ANNEAL_{name.upper()}_ADDR"}


@dataclass(frozen=True, kw_only=True)
class Services:
    """What runs: addresses by name, and the supervisor for who wants to look inside."""

    addresses: Mapping[str, str]
    supervisor: SupervisorApp


async def _apps(environ: Mapping[str, str], supervisor: SupervisorApp) -> list[App]:
    memory = await MemoryApp.create(load(MemorySettings, told(environ, "memory")))
    checkpoint = await CheckpointApp.create(
        load(CheckpointSettings, told(environ, "checkpoint")), {DriverKind.NSPAWN: StubDriver()}
    )
    return [
        memory,
        checkpoint,
        EvaluatorApp(load(EvaluatorSettings, told(environ, "evaluator")), StubSessions()),
        supervisor,
        WorkerApp(load(WorkerSettings, told(environ, "worker")), StubSessions()),
    ]


@asynccontextmanager
async def services(environ: Mapping[str, str]) -> AsyncIterator[Services]:
    """The five of them, running."""
    supervisor = SupervisorApp(load(SupervisorSettings, told(environ, "supervisor")))
    async with AsyncExitStack() as stack:
        for app in await _apps(environ, supervisor):
            await app.start()
            stack.push_async_callback(app.stop)
        addresses = {name: environ[f"ANNEAL_{name.upper()}_ADDR"] for name in NAMES}
        yield Services(addresses=addresses, supervisor=supervisor)
