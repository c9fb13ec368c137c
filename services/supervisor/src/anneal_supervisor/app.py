"""Composition root of the supervisor."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from operator import attrgetter

from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal.evaluator.v1.evaluator_pb2_grpc import EvaluatorServiceStub
from anneal.memory.v1.memory_pb2_grpc import MemoryServiceStub
from anneal.supervisor.v1.control_pb2_grpc import ControlServiceStub, add_ControlServiceServicer_to_server
from anneal.supervisor.v1.queues_pb2_grpc import QueueServiceStub, add_QueueServiceServicer_to_server
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub, add_SupervisorServiceServicer_to_server
from anneal_contracts.work import command_of
from anneal_runtime import rpc
from anneal_runtime.bus import EVENTS, WORK, Bus
from anneal_runtime.clock import SystemClock

from anneal_supervisor.api import SupervisorApi
from anneal_supervisor.control import Control
from anneal_supervisor.control_api import ControlApi
from anneal_supervisor.dispatch import Dispatcher
from anneal_supervisor.domain import Supervisor
from anneal_supervisor.forks import Forks
from anneal_supervisor.hub import Hub
from anneal_supervisor.outbox import Outbox
from anneal_supervisor.peers import Peers, RunOf, at_the_driver
from anneal_supervisor.queue_api import QueueApi
from anneal_supervisor.queues import Queues
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.store import Replica
from anneal_supervisor.store_parked import ParkedStore
from anneal_supervisor.store_postgres import PostgresStore

SERVICE = "anneal.supervisor.v1.SupervisorService"
CONTROL_SERVICE = "anneal.supervisor.v1.ControlService"
QUEUE_SERVICE = "anneal.supervisor.v1.QueueService"

# Calls that only the driver of a run can answer, or answers best, and which run each request is about.
_RUN_ID: RunOf = attrgetter("run_id")
_OF_RUNS = dict.fromkeys(("GetRun", "CancelRun", "ReportResult", "ReportProgress"), _RUN_ID)
_OF_CONTROL: Mapping[str, RunOf] = {
    **dict.fromkeys(("PauseRun", "ResumeRun", "ListApprovals"), _RUN_ID),
    **dict.fromkeys(("GetApproval", "AnswerApproval"), lambda request: request.id.partition("/")[0]),
}
_OF_QUEUES: Mapping[str, RunOf] = {"ParkMessage": lambda request: command_of(request.msg_id)[0]}


class SupervisorApp:
    """Start order: store, bus, the door, and last the loops that drive runs; stop is the reverse."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._store: PostgresStore | None = None
        self._bus: Bus | None = None
        self._domain: Supervisor | None = None
        self._server: rpc.RpcServer | None = None
        self._peers: Peers | None = None
        self._channels = [
            rpc.channel(addr, settings.auth_token.get_secret_value())
            for addr in (settings.checkpoint_addr, settings.memory_addr, settings.evaluator_addr)
        ]

    @property
    def port(self) -> int:
        """The port that the gRPC server got."""
        assert self._server is not None
        return self._server.port

    async def start(self) -> None:
        s = self._settings
        token = s.auth_token.get_secret_value()
        self._store = store = await PostgresStore.open(s.postgres_dsn)
        self._bus = await Bus.connect(s.nats_url, token, name="supervisor")
        await self._bus.ensure_streams(WORK, EVENTS)
        outbox = Outbox(store, self._bus)
        checkpoint, memory, evaluator = (
            CheckpointServiceStub(self._channels[0]),
            MemoryServiceStub(self._channels[1]),
            EvaluatorServiceStub(self._channels[2]),
        )
        clock = SystemClock()
        self._domain = domain = Supervisor(
            store=store,
            dispatcher=Dispatcher(store, checkpoint, memory, lease_s=s.target_lease_s),
            clock=clock,
            hub=Hub(outbox.send),
            max_runs=s.max_runs,
            lease_s=s.run_lease_s,
        )
        api = SupervisorApi(domain, s, evaluator, checkpoint, clock)
        queues = QueueApi(Queues(store=ParkedStore(store.database), runs=domain, bus=self._bus, wake=outbox.wake))
        self._peers = peers = Peers(store, token)
        control = ControlApi(Control(domain), Forks(domain, store, checkpoint, s, clock), store, peers)
        runs = at_the_driver(api, SupervisorServiceStub, peers, domain.drives, _OF_RUNS)
        hands = at_the_driver(control, ControlServiceStub, peers, domain.drives, _OF_CONTROL)
        given_up = at_the_driver(queues, QueueServiceStub, peers, domain.drives, _OF_QUEUES)
        self._server = await rpc.serve(
            listen=s.listen,
            token=token,
            services=[
                (SERVICE, lambda server: add_SupervisorServiceServicer_to_server(runs, server)),
                (CONTROL_SERVICE, lambda server: add_ControlServiceServicer_to_server(hands, server)),
                (QUEUE_SERVICE, lambda server: add_QueueServiceServicer_to_server(given_up, server)),
            ],
        )
        # From here on the address is ours alone: what is left under it is a dead predecessor's.
        replica = _replica(s, self._server.port)
        peers.here = replica.address
        self._tasks = [asyncio.create_task(outbox.run()), asyncio.create_task(domain.drive(replica))]
        self._tasks.append(asyncio.create_task(domain.keep_targets()))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(self._settings.shutdown_grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._domain is not None:
            await self._domain.stop()
        for channel in self._channels:
            await channel.close()
        if self._peers is not None:
            await self._peers.close()
        if self._bus is not None:
            await self._bus.close()
        if self._store is not None:
            await self._store.close()


def _replica(s: SupervisorSettings, port: int) -> Replica:
    """Who we are to other replicas. A host that listens everywhere is reached by its name."""
    here = socket.gethostname()
    host = s.listen.rpartition(":")[0]
    address = s.advertise or f"{here if host in ('', '0.0.0.0', '[::]') else host}:{port}"  # noqa: S104
    return Replica(place=f"{here}/{address}", address=address, life=f"{os.getpid()}-{secrets.token_hex(4)}")
