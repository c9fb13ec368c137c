"""The composition root: puts the rooms together, starts and stops them in order."""

from collections.abc import Mapping
from importlib import resources

from anneal.gateway.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from anneal_runtime.clock import SystemClock
from anneal_runtime.postgres import Database
from anneal_runtime.rpc import RpcServer, serve

from anneal_gateway.api import SERVICE, GatewayApi
from anneal_gateway.clients import Clients
from anneal_gateway.door import Door
from anneal_gateway.http import create_http
from anneal_gateway.listener import HttpListener
from anneal_gateway.profiles import Profiles, load_profiles
from anneal_gateway.report.reports import Reports
from anneal_gateway.settings import GatewaySettings
from anneal_gateway.store_postgres import PostgresLedger

SCHEMA = "gateway"


class GatewayApp:
    """One running gateway."""

    def __init__(self, settings: GatewaySettings, profiles: Profiles, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._clients = Clients(settings)
        self._door = Door(profiles, PostgresLedger(database), SystemClock())
        self._api = GatewayApi(self._clients, Reports(self._clients), self._door)
        app = create_http(self._door, self._clients.control, settings.auth_token.get_secret_value(), self._not_ready)
        self._http = HttpListener(app, settings.http_listen)
        self._server: RpcServer | None = None

    @classmethod
    async def create(cls, settings: GatewaySettings, environ: Mapping[str, str]) -> "GatewayApp":
        """environ holds the keys that profiles name. Raises InvalidArgument naming what is wrong in anneal.yaml."""
        profiles = load_profiles(settings, environ)
        migrations = resources.files("anneal_gateway").joinpath("migrations")
        database = await Database.open(settings.postgres_dsn, schema=SCHEMA, migrations=migrations)
        return cls(settings, profiles, database)

    @property
    def port(self) -> int:
        """The port of the gRPC server; 0 before start."""
        return self._server.port if self._server else 0

    @property
    def http_port(self) -> int:
        """The port of the model door; 0 before start."""
        return self._http.port

    async def start(self) -> None:
        await self._http.start()
        self._server = await serve(
            listen=self._settings.listen,
            token=self._settings.auth_token.get_secret_value(),
            services=[(SERVICE, lambda server: add_GatewayServiceServicer_to_server(self._api, server))],
        )

    async def stop(self) -> None:
        """Model calls under way end first: each settles what it used while the database is still there."""
        grace = self._settings.shutdown_grace_s
        if self._server is not None:
            await self._server.stop(grace)
        await self._http.stop(grace)
        await self._door.close()
        await self._clients.close()
        await self._database.close()

    async def _not_ready(self) -> str:
        try:
            await self._database.pool.fetchval("SELECT 1", timeout=2)
        except Exception as e:  # whatever it is, the door cannot account for a call now
            return f"the database does not answer: {type(e).__name__}"
        return ""
