"""A running checkpoint service on a real database, with a driver whose machines are folders."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import grpc.aio
import pytest
import pytest_asyncio
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal_checkpoint.app import CheckpointApp
from anneal_checkpoint.drivers.ssh import SshDriver
from anneal_checkpoint.model import DriverKind, Reach, Target
from anneal_checkpoint.settings import CheckpointSettings
from anneal_runtime.embedded import EmbeddedPostgres
from anneal_runtime.errors import InvalidArgument, NotFound, TargetUnreachable, Unavailable
from anneal_runtime.rpc import channel
from anneal_runtime.testing import fresh_dsn
from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    # The generated asynchronous view of the stub exists for the type checker alone.
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub

    Stub: TypeAlias = CheckpointServiceAsyncStub
else:
    Stub = CheckpointServiceStub

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIbsLMTIPvYqQVDFJnRZ0v1kKrwyZ2zPlhNmKRtBnBFG"


@dataclass
class FolderDriver:
    """Machines are folders of files; a saved state is a copy. Stands for the lab where no machine can be booted."""

    base: Path
    can_snapshot: bool = True
    calls: list[str] = field(default_factory=list)
    # Set to make the next restore fail half-way: the first file is back, the rest is not.
    break_restore: bool = False
    # Restores wait for it.
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def machine(self, name: str) -> Path:
        return self.base / "machines" / name

    def saved(self, machine: str, name: str) -> Path:
        return self.base / "saved" / machine / name

    async def check(self, target: Target) -> Target:
        if not self.machine(target.machine).is_dir():
            raise InvalidArgument("no such machine", field="machine")
        return target

    async def reach(self, target: Target) -> Reach:
        if not self.machine(target.machine).is_dir():
            raise TargetUnreachable("the machine is off", field="target")
        return Reach(host="127.0.0.1", port=22, user="ops", key_path="/key", host_key=HOST_KEY)

    async def snapshot(self, machine: str, name: str, *, recycle: str = "") -> None:
        self.calls.append(f"snapshot {name}")
        if recycle:
            shutil.rmtree(self.saved(machine, recycle), ignore_errors=True)
        shutil.rmtree(self.saved(machine, name), ignore_errors=True)
        shutil.copytree(self.machine(machine), self.saved(machine, name))

    async def restore(self, machine: str, name: str) -> None:
        self.calls.append(f"restore {name}")
        await self.gate.wait()
        if not self.saved(machine, name).is_dir():
            raise NotFound("no such state", field="generation")
        for n, file in enumerate(sorted(self.saved(machine, name).iterdir())):
            if self.break_restore and n == 1:
                self.break_restore = False
                raise Unavailable("the disk went away", field="target")
            shutil.copy(file, self.machine(machine) / file.name)
        for file in self.machine(machine).iterdir():
            if not (self.saved(machine, name) / file.name).exists():
                file.unlink()

    async def changed(self, machine: str, name: str, ignore: Sequence[str]) -> Sequence[str]:
        now, then = _files(self.machine(machine)), _files(self.saved(machine, name))
        return sorted(f for f in now.keys() | then.keys() if now.get(f) != then.get(f) and f not in ignore)

    async def drop(self, machine: str, name: str) -> None:
        shutil.rmtree(self.saved(machine, name), ignore_errors=True)

    def states(self, machine: str) -> list[str]:
        """Numbers of the generations whose files are there, of all runs."""
        folder = self.base / "saved" / machine
        return sorted(p.name.rpartition("-")[2] for p in folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="session")
def one_database(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database for all tests of this folder: making one costs more than most of them."""
    with asyncio.Runner() as runner:
        context = fresh_dsn(postgres_server)
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@pytest_asyncio.fixture
async def postgres_dsn(one_database: str) -> AsyncIterator[str]:
    """As fresh as a new database: the service's schema is gone after each test."""
    yield one_database
    conn = await asyncpg.connect(one_database)
    await conn.execute("DROP SCHEMA IF EXISTS checkpoint CASCADE")
    await conn.close()


@pytest.fixture
def driver(tmp_path: Path) -> FolderDriver:
    made = FolderDriver(tmp_path)
    made.gate.set()
    for name in ("m1", "m2"):
        made.machine(name).mkdir(parents=True)
        for file in ("a", "b", "c"):
            (made.machine(name) / file).write_text("original")
    return made


Serve = Callable[..., AbstractAsyncContextManager[Stub]]


@pytest.fixture
def serve(postgres_dsn: str, auth_token: str, driver: FolderDriver, tmp_path: Path) -> Serve:
    """Starts a service on the test's database; used twice it is a restart, or a second replica."""

    @asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[Stub]:
        values = {"postgres_dsn": postgres_dsn, "auth_token": auth_token, "home": tmp_path, **settings}
        drivers = {DriverKind.NSPAWN: driver, DriverKind.SSH: SshDriver()}
        app = await CheckpointApp.create(CheckpointSettings(**values), drivers)  # type: ignore[arg-type]
        await app.start()
        wire: grpc.aio.Channel = channel(f"127.0.0.1:{app.port}", auth_token)
        try:
            yield CheckpointServiceStub(wire)
        finally:
            await wire.close()
            await app.stop()

    return start


@pytest_asyncio.fixture
async def stub(serve: Serve) -> AsyncIterator[Stub]:
    """A running service that knows the target `lab` on machine m1."""
    async with serve() as one:
        await one.AddTarget(pb.AddTargetRequest(idempotency_key="setup", target=lab_target()))
        yield one


def lab_target(name: str = "lab", machine: str = "m1") -> pb.Target:
    return pb.Target(name=name, driver="nspawn", machine=machine)


async def acquire(stub: Stub, run_id: str, *, target: str = "lab", ttl: int = 600) -> int:
    """The token of a lease that run_id gets."""
    answer = await stub.AcquireLease(
        pb.AcquireLeaseRequest(idempotency_key=f"a-{run_id}", target=target, run_id=run_id, ttl=Duration(seconds=ttl))
    )
    return answer.fencing_token


async def release(stub: Stub, run_id: str, token: int, *, key: str = "") -> None:
    await stub.ReleaseLease(
        pb.ReleaseLeaseRequest(
            idempotency_key=key or f"r-{run_id}-{token}", target="lab", run_id=run_id, fencing_token=token
        )
    )


def snapshot_request(run_id: str, token: int, generation: int, *, key: str = "", seq: int = 0) -> pb.SnapshotRequest:
    return pb.SnapshotRequest(
        idempotency_key=key or f"s-{run_id}-{generation}",
        target="lab",
        run_id=run_id,
        fencing_token=token,
        generation=generation,
        command_seq=seq,
    )


def restore_request(
    run_id: str,
    token: int,
    generation: int,
    *,
    key: str,
    force: bool = False,
    volatile: Sequence[str] = (),
    seq: int = 0,
) -> pb.RestoreRequest:
    return pb.RestoreRequest(
        idempotency_key=key,
        target="lab",
        run_id=run_id,
        fencing_token=token,
        generation=generation,
        force=force,
        volatile_paths=volatile,
        command_seq=seq,
    )


def effect_request(
    run_id: str, token: int, *, key: str = "e1", action_hash: str = "h1", seq: int = 0, undoes: str = ""
) -> pb.BeginEffectRequest:
    effect = pb.Effect(
        run_id=run_id,
        item_id="item-1",
        attempt=1,
        action_hash=action_hash,
        fencing_token=token,
        command_seq=seq,
        undoes=undoes,
    )
    return pb.BeginEffectRequest(idempotency_key=key, target="lab", effect=effect)
