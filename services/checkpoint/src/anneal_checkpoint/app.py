"""The composition root: puts the rooms together, starts and stops them in order."""

from collections.abc import Mapping

from anneal.checkpoint.v1.checkpoint_pb2_grpc import add_CheckpointServiceServicer_to_server
from anneal_lab import Lab
from anneal_runtime.postgres import Database
from anneal_runtime.rpc import RpcServer, serve

from anneal_checkpoint.api import SERVICE, CheckpointApi
from anneal_checkpoint.drivers.base import Driver
from anneal_checkpoint.drivers.nspawn import NspawnDriver
from anneal_checkpoint.drivers.ssh import SshDriver
from anneal_checkpoint.effects import Effects
from anneal_checkpoint.leases import Leases
from anneal_checkpoint.model import DriverKind
from anneal_checkpoint.operations import Operations
from anneal_checkpoint.retention import Sweeper
from anneal_checkpoint.settings import CheckpointSettings
from anneal_checkpoint.store_postgres import PostgresStore, open_database
from anneal_checkpoint.targets import Targets

# Connections for everything but operations, which hold two each.
_SHORT_CALLS = 4


def lab_drivers(settings: CheckpointSettings) -> Mapping[DriverKind, Driver]:
    """The drivers of a real process."""
    return {DriverKind.NSPAWN: NspawnDriver(Lab(settings.home / "lab")), DriverKind.SSH: SshDriver()}


class CheckpointApp:
    """One running checkpoint service."""

    def __init__(self, settings: CheckpointSettings, drivers: Mapping[DriverKind, Driver], database: Database) -> None:
        store = PostgresStore(database)
        self._settings = settings
        self._database = database
        self._sweeper = Sweeper(store, drivers, interval_s=settings.sweep_interval_s)
        self._operations = Operations(
            store,
            drivers,
            keep=settings.keep_generations,
            milestones=settings.keep_milestones,
            max_paths=settings.max_changed_paths,
            at_once=settings.max_operations,
        )
        targets = Targets(store, drivers, wake_sweeper=self._sweeper.wake)
        leases = Leases(
            store,
            targets,
            ttl_max_s=settings.lease_ttl_max_s,
            keep_runs=settings.keep_runs,
            wake_sweeper=self._sweeper.wake,
        )
        self._api = CheckpointApi(targets=targets, leases=leases, operations=self._operations, effects=Effects(store))
        self._server: RpcServer | None = None

    @classmethod
    async def create(
        cls, settings: CheckpointSettings, drivers: Mapping[DriverKind, Driver] | None = None
    ) -> "CheckpointApp":
        """Opens the database; drivers are given by tests alone."""
        size = _SHORT_CALLS + 2 * settings.max_operations
        database = await open_database(settings.postgres_dsn, max_size=size)
        return cls(settings, drivers or lab_drivers(settings), database)

    @property
    def port(self) -> int:
        """The port the server listens on; 0 before start."""
        return self._server.port if self._server else 0

    async def start(self) -> None:
        self._operations.start()
        self._sweeper.start()
        self._server = await serve(
            listen=self._settings.listen,
            token=self._settings.auth_token.get_secret_value(),
            services=[(SERVICE, lambda server: add_CheckpointServiceServicer_to_server(self._api, server))],
        )

    async def stop(self) -> None:
        """No new calls, then what is under way ends: a restore is never left half done by a clean stop."""
        if self._server is not None:
            await self._server.stop(self._settings.shutdown_grace_s)
        await self._operations.close()
        await self._sweeper.stop()
        await self._database.close()
