"""`python -m bench.stub.service NAME`: that service as it is, with a target that answers at once."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from anneal_checkpoint.app import CheckpointApp
from anneal_checkpoint.model import DriverKind, Reach, Target
from anneal_checkpoint.settings import CheckpointSettings
from anneal_contracts.facts import TargetAccess
from anneal_evaluator.app import EvaluatorApp
from anneal_evaluator.settings import EvaluatorSettings
from anneal_runtime import logs, service, telemetry
from anneal_runtime.errors import NotFound
from anneal_runtime.settings import load
from anneal_skillkit.interfaces import ExecResult, TargetSession
from anneal_worker.app import WorkerApp
from anneal_worker.settings import WorkerSettings


class StubSession:
    """A session on nothing: every program ends well and says nothing."""

    def __init__(self, access: TargetAccess) -> None:
        self.access = access

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = True,
        timeout_s: float = 30.0,
        limit: int = 1 << 20,
    ) -> ExecResult:
        # Which boot it is, and how far into it: the only words of a target that the harness itself reads.
        return ExecResult(exit_code=0, stdout=b"00000000-0000-4000-8000-000000000000\n1.00 1.00\n", stderr=b"")

    async def read(self, path: str, *, limit: int = 1 << 24) -> bytes:
        raise NotFound(f"the stub has no file {path}")

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None: ...

    async def fresh(self) -> "StubSession":
        return StubSession(self.access)

    async def close(self) -> None: ...


class StubSessions:
    """Opens stub sessions."""

    async def get(self, access: TargetAccess) -> TargetSession:
        return StubSession(access)

    async def drop(self, access: TargetAccess) -> None: ...

    async def close(self) -> None: ...


class StubDriver:
    """Saves and brings back nothing, at once. Something has always changed: a revert is one that restores."""

    can_snapshot = True

    async def check(self, target: Target) -> Target:
        return target

    async def reach(self, target: Target) -> Reach:
        return Reach(host="127.0.0.1", port=1, user="nobody", key_path="/nowhere", host_key="none")

    async def snapshot(self, machine: str, name: str, *, recycle: str = "") -> None: ...

    async def restore(self, machine: str, name: str) -> None: ...

    async def changed(self, machine: str, name: str, ignore: Sequence[str]) -> Sequence[str]:
        return ["/etc/stub.conf"]

    async def drop(self, machine: str, name: str) -> None: ...


async def _worker() -> service.App:
    return WorkerApp(load(WorkerSettings, os.environ), StubSessions())


async def _evaluator() -> service.App:
    return EvaluatorApp(load(EvaluatorSettings, os.environ), StubSessions())


async def _checkpoint() -> service.App:
    return await CheckpointApp.create(load(CheckpointSettings, os.environ), {DriverKind.NSPAWN: StubDriver()})


APPS: Mapping[str, Callable[[], Awaitable[service.App]]] = {
    "worker": _worker,
    "evaluator": _evaluator,
    "checkpoint": _checkpoint,
}


def main(name: str) -> int:
    """Runs until SIGTERM, as the service's own __main__ does."""
    logs.configure(name, os.environ.get("ANNEAL_LOG_LEVEL", "INFO"))
    telemetry.configure(name, os.environ.get("ANNEAL_OTLP_ENDPOINT", ""))
    return service.run(APPS[name], service=name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
