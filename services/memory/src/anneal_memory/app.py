"""The composition root: puts the rooms together, starts and stops them in order."""

from anneal.memory.v1.memory_pb2_grpc import add_MemoryServiceServicer_to_server
from anneal_runtime.postgres import Database
from anneal_runtime.rpc import RpcServer, serve

from anneal_memory.api import SERVICE, MemoryApi
from anneal_memory.domain import Memories
from anneal_memory.settings import MemorySettings
from anneal_memory.store_postgres import PostgresStore, open_database


class MemoryApp:
    """One running memory service."""

    def __init__(self, settings: MemorySettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._api = MemoryApi(Memories(PostgresStore(database), settings))
        self._server: RpcServer | None = None

    @classmethod
    async def create(cls, settings: MemorySettings) -> "MemoryApp":
        """Opens the database."""
        return cls(settings, await open_database(settings.postgres_dsn))

    @property
    def port(self) -> int:
        """The port the server listens on; 0 before start."""
        return self._server.port if self._server else 0

    async def start(self) -> None:
        self._server = await serve(
            listen=self._settings.listen,
            token=self._settings.auth_token.get_secret_value(),
            services=[(SERVICE, lambda server: add_MemoryServiceServicer_to_server(self._api, server))],
        )

    async def stop(self) -> None:
        """No new calls; running ones get the grace time; then the database is let go."""
        if self._server is not None:
            await self._server.stop(self._settings.shutdown_grace_s)
        await self._database.close()
