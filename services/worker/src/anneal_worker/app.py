"""Composition root of a worker."""

import asyncio
from collections.abc import Mapping

from anneal.memory.v1.memory_pb2_grpc import MemoryServiceStub
from anneal.worker.v1.worker_pb2_grpc import add_WorkerServiceServicer_to_server
from anneal_contracts.work import WorkClass
from anneal_runtime import rpc
from anneal_runtime.bus import EVENTS, WORK, Bus
from anneal_runtime.clock import SystemClock
from anneal_skillkit.bench import Handler, Workbench, points
from anneal_skillkit.doer import take_in
from anneal_skillkit.interfaces import Sessions
from anneal_skillkit.loader import discover_skills

from anneal_worker.actions import Actions
from anneal_worker.api import WorkerApi
from anneal_worker.planning import Planner
from anneal_worker.roles import ModelDoor
from anneal_worker.settings import WorkerSettings
from anneal_worker.turns import Turns

SERVICE = "anneal.worker.v1.WorkerService"
_POINTS = points("worker")


class WorkerApp:
    """Start order: skills, bus, door, consumers (one a class of work); stop is the reverse.

    sessions: given by benchmarks alone.
    """

    def __init__(self, settings: WorkerSettings, sessions: Sessions | None = None) -> None:
        self._settings = s = settings
        self._sessions = sessions
        self._token = s.auth_token.get_secret_value()
        addresses = (s.supervisor_addr, s.checkpoint_addr, s.memory_addr)
        self._channels = [rpc.channel(a, self._token) for a in addresses]
        self._door = ModelDoor(s.gateway_url, self._token)
        self._bus: Bus | None = None
        self._bench: Workbench | None = None
        self._server: rpc.RpcServer | None = None

    @property
    def port(self) -> int:
        """The port that the gRPC server got."""
        assert self._server is not None
        return self._server.port

    async def start(self) -> None:
        s = self._settings
        cache = s.home / "cache" / "skills"
        skills = await asyncio.to_thread(discover_skills, s.skills_dir, cache=cache)
        self._bench = bench = Workbench(
            skills=skills,
            cache=cache,
            supervisor=self._channels[0],
            checkpoint=self._channels[1],
            clock=SystemClock(),
            points=_POINTS,
            sessions=self._sessions,
        )
        self._bus = await Bus.connect(s.nats_url, self._token, name="worker")
        await self._bus.ensure_streams(WORK, EVENTS)
        api = WorkerApi(bench, self._door)
        self._server = await rpc.serve(
            listen=s.listen,
            token=self._token,
            services=[(SERVICE, lambda server: add_WorkerServiceServicer_to_server(api, server))],
        )
        planner = Planner(bench, MemoryServiceStub(self._channels[2]), self._door)
        turns, actions = Turns(bench, self._door), Actions(bench)
        work: Mapping[WorkClass, tuple[Mapping[str, Handler], int]] = {
            WorkClass.MODEL: ({"plan": planner.plan, **turns.handlers()}, s.model_concurrency),
            WorkClass.ACTION: ({"apply": actions.apply}, s.action_concurrency),
            WorkClass.POST: ({"reflect": turns.reflect}, s.post_concurrency),
        }
        for work_class in s.work_classes:
            handlers, lanes = work[work_class]
            await take_in(self._bus, bench, work_class, handlers, concurrency=lanes, retry_waits_s=s.retry_waits_s)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(self._settings.shutdown_grace_s)
        if self._bus is not None:
            await self._bus.close(self._settings.shutdown_grace_s)
        if self._bench is not None:
            await self._bench.close()
        await self._door.close()
        for channel in self._channels:
            await channel.close()
