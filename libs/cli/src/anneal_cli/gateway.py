"""The way to anneal: one channel to the gateway, and the one place where its errors become exit codes."""

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import grpc.aio
from anneal.gateway.v1.gateway_pb2 import GetReportRequest
from anneal.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from anneal.supervisor.v1.supervisor_pb2 import GetBlobRequest, GetRunRequest, ListRunsRequest, Run
from anneal_runtime.errors import (
    AlreadyExists,
    AnnealError,
    Conflict,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    HostKeyChanged,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    TargetUnreachable,
    Unauthenticated,
    Unavailable,
)
from anneal_runtime.rpc import channel

from anneal_cli.dev.plan import DEFAULT_BASE, LOOPBACK
from anneal_cli.dev.state import read_state
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home
from anneal_cli.safe import make_visible

if TYPE_CHECKING:
    from anneal.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_START_HINT = "start it with: anneal dev   (or say where it is: --gateway HOST:PORT)"


class Gateway:
    """The gateway, as commands use it. Every method raises AnnealError."""

    def __init__(self, address: str, conn: grpc.aio.Channel) -> None:
        self.address = address
        self.stub: GatewayServiceAsyncStub = GatewayServiceStub(conn)

    async def run_id(self, given: str) -> str:
        """The full id for an id, a unique beginning of one, or `last`. Raises CliError: none, or several."""
        runs = list((await self.stub.ListRuns(ListRunsRequest(limit=1000))).runs)
        if given == "last":
            if not runs:
                raise CliError(
                    message="there is no run yet",
                    code=ExitCode.NOT_FOUND,
                    field="RUN",
                    hint="anneal run SKILL --target NAME",
                )
            return max(runs, key=lambda run: (run.created_at.seconds, run.created_at.nanos)).run_id
        found = [run.run_id for run in runs if run.run_id.startswith(given)]
        if given in found or len(found) == 1:
            return given if given in found else found[0]
        if not found:
            raise CliError(
                message=f"no run begins with {given!r}",
                code=ExitCode.NOT_FOUND,
                field="RUN",
                hint="anneal runs lists them",
            )
        some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        raise CliError(
            message=f"{given!r} is the beginning of {len(found)} runs: {some}",
            code=ExitCode.USAGE,
            field="RUN",
            hint="give more of the id",
        )

    async def run(self, given: str) -> Run:
        """A run in full, by what resolves to it."""
        return await self.exact_run(await self.run_id(given))

    async def exact_run(self, run_id: str) -> Run:
        """A run in full; what came from a target in it can do nothing to a terminal any more."""
        run = (await self.stub.GetRun(GetRunRequest(run_id=run_id))).run
        make_visible(run)
        return run

    async def blob(self, name: str) -> bytes:
        """Content of a blob; empty for an empty name."""
        return (await self.stub.GetBlob(GetBlobRequest(sha256=name))).content if name else b""

    async def report(self, run_id: str, fmt: str) -> tuple[bytes, str]:
        """A report in full and its media type."""
        chunks, media_type = [], ""
        async for piece in self.stub.GetReport(GetReportRequest(run_id=run_id, format=fmt), timeout=300):
            chunks.append(piece.chunk)
            media_type = media_type or piece.media_type
        return b"".join(chunks), media_type


def me() -> str:
    """Who asks, as this machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def gateway_option(command: F) -> F:
    """Adds --gateway."""
    return click.option(
        "--gateway",
        "gateway",
        default=None,
        envvar="ANNEAL_GATEWAY",
        metavar="HOST:PORT",
        help="gRPC address of the gateway (default: the running anneal dev's, else 127.0.0.1:7400).",
    )(command)


def address_of(home: Home, given: str | None) -> str:
    """Where the gateway is: as given, else the running `anneal dev`'s, else the default port."""
    if given:
        host, _, port = given.rpartition(":")
        if not host or not port.isdigit():
            raise CliError(
                message=f"not HOST:PORT: {given!r}",
                code=ExitCode.USAGE,
                field="--gateway",
                hint=f"for example --gateway {LOOPBACK}:{DEFAULT_BASE}",
            )
        return given
    state = read_state(home)
    base = state.port_base if state else int(os.environ.get("ANNEAL_PORT_BASE") or DEFAULT_BASE)
    return f"{LOOPBACK}:{base}"


@asynccontextmanager
async def connected(home: Home, given: str | None) -> AsyncIterator[Gateway]:
    """A gateway to talk to; connects on the first call."""
    address = address_of(home, given)
    token = home.token()
    # A person waits: that nobody answers is said at once; watching tries again by itself.
    conn = channel(address, token, timeout_s=30.0, retry=False)
    try:
        yield Gateway(address, conn)
    finally:
        await conn.close()


def call(home_dir: str | None, given: str | None, work: Callable[[Gateway], Awaitable[T]]) -> T:
    """Runs work against the gateway. What it refuses becomes a CliError with an exit code and a next step."""
    home = Home.of(home_dir)

    async def whole() -> T:
        async with connected(home, given) as gateway:
            return await work(gateway)

    try:
        return asyncio.run(whole())
    except AnnealError as e:
        raise translate(e, home=home, address=address_of(home, given)) from e


def translate(error: AnnealError, *, home: Home, address: str) -> CliError:
    """The error for people: exit code and next step by its type; the server's own next step wins."""
    code, hint = _code_and_hint(error, home, address)
    message = (
        f"cannot reach anneal at {address}"
        if isinstance(error, Unavailable) and not error.message.strip()
        else error.message
    )
    if code is ExitCode.UNREACHABLE and isinstance(error, Unavailable) and "connect" in message:
        message = f"cannot reach anneal at {address}: nothing answers there"
    return CliError(
        message=message,
        code=code,
        field=error.field,
        hint=error.details.get("hint") or error.details.get("next") or hint,
    )


def _code_and_hint(error: AnnealError, home: Home, address: str) -> tuple[ExitCode, str]:
    match error:
        case TargetUnreachable():
            return ExitCode.NOT_HELD, "is the machine up? anneal target test NAME looks closer"
        case HostKeyChanged():
            return ExitCode.NOT_HELD, "find out why it changed; then: anneal target remove NAME, and add it again"
        case Unavailable():
            return ExitCode.UNREACHABLE, _START_HINT
        case DeadlineExceeded():
            return ExitCode.UNREACHABLE, "anneal dev status shows which part does not answer"
        case Unauthenticated() | PermissionDenied():
            return (
                ExitCode.UNREACHABLE,
                f"the token comes from ANNEAL_TOKEN or {home.token_file}; is {address} the same anneal?",
            )
        case NotFound():
            return ExitCode.NOT_FOUND, _where_to_look(error.field)
        case Conflict() | AlreadyExists() | FailedPrecondition():
            return (
                ExitCode.CONFLICT,
                "anneal runs shows what is under way; anneal cancel RUN ends one" if error.reason == "leased" else "",
            )
        case DataLoss():
            return ExitCode.NOT_HELD, "anneal audit verify RUN names what does not fit"
        case InvalidArgument():
            return ExitCode.USAGE, _where_to_look(error.field)
    return ExitCode.NOT_HELD, "anneal dev logs shows what happened; anneal doctor checks this machine"


def _where_to_look(field: str) -> str:
    """The command that lists what may be named in a field."""
    lists = {
        "target": "anneal target list",
        "skill": "anneal skills",
        "profile": "anneal skills",
        "run_id": "anneal runs",
    }
    known = next((command for key, command in lists.items() if key in field), "")
    return f"{known} lists them" if known else ""
