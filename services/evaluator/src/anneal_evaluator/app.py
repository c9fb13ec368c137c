"""Composition root of the evaluator."""

import asyncio

from anneal.evaluator.v1.evaluator_pb2_grpc import add_EvaluatorServiceServicer_to_server
from anneal_contracts.work import WorkClass
from anneal_runtime import rpc
from anneal_runtime.bus import EVENTS, WORK, Bus
from anneal_runtime.clock import SystemClock
from anneal_skillkit.bench import Workbench, points
from anneal_skillkit.doer import take_in
from anneal_skillkit.interfaces import Sessions
from anneal_skillkit.loader import discover_skills

from anneal_evaluator.api import EvaluatorApi
from anneal_evaluator.domain import Evaluations
from anneal_evaluator.settings import EvaluatorSettings
from anneal_evaluator.store import BaselineStore

SERVICE = "anneal.evaluator.v1.EvaluatorService"
_POINTS = points("evaluator")


class EvaluatorApp:
    """Start order: store, skills, bus, door, consumer; stop is the reverse. sessions: given by benchmarks alone."""

    def __init__(self, settings: EvaluatorSettings, sessions: Sessions | None = None) -> None:
        self._settings = settings
        self._sessions = sessions
        self._token = settings.auth_token.get_secret_value()
        self._channels = [rpc.channel(a, self._token) for a in (settings.supervisor_addr, settings.checkpoint_addr)]
        self._store: BaselineStore | None = None
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
        self._store = store = await BaselineStore.open(s.postgres_dsn)
        self._bench = bench = Workbench(
            skills=skills,
            cache=cache,
            supervisor=self._channels[0],
            checkpoint=self._channels[1],
            clock=SystemClock(),
            points=_POINTS,
            sessions=self._sessions,
        )
        self._bus = await Bus.connect(s.nats_url, self._token, name="evaluator")
        await self._bus.ensure_streams(WORK, EVENTS)
        api = EvaluatorApi(bench, store)
        self._server = await rpc.serve(
            listen=s.listen,
            token=self._token,
            services=[(SERVICE, lambda server: add_EvaluatorServiceServicer_to_server(api, server))],
        )
        handlers = Evaluations(bench).handlers()
        await take_in(
            self._bus,
            bench,
            WorkClass.EVALUATION,
            handlers,
            concurrency=s.concurrency,
            retry_waits_s=s.retry_waits_s,
        )

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(self._settings.shutdown_grace_s)
        if self._bus is not None:
            await self._bus.close(self._settings.shutdown_grace_s)
        if self._bench is not None:
            await self._bench.close()
        for channel in self._channels:
            await channel.close()
        if self._store is not None:
            await self._store.close()
