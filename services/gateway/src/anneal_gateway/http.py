"""The HTTP side: the model door in OpenAI's shape, the profiles, people's hand on a run, and the health pages."""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from anneal_contracts.roles import ModelRole
from anneal_runtime.errors import AnnealError, Internal, InvalidArgument, Unauthenticated
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from anneal_gateway.door import Caller, Door
from anneal_gateway.errors import api_shape, openai_shape, retry_after
from anneal_gateway.http_people import people

if TYPE_CHECKING:
    from anneal.supervisor.v1.control_pb2_grpc import ControlServiceAsyncStub

log = logging.getLogger(__name__)

# A prompt is bounded by its budget; this bounds what is read before anything is known of it.
MAX_REQUEST_BYTES = 4 << 20
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
# Their clients are made for OpenAI's API, and know its codes alone.
_DOOR_PATHS = frozenset({"/v1/chat/completions", "/v1/models", "/v1/profiles"})


def create_http(
    door: Door, control: "ControlServiceAsyncStub", token: str, ready: Callable[[], Awaitable[str]]
) -> FastAPI:
    """The ASGI app. ready() says in words what is not ready; empty: all is."""
    app = FastAPI(
        title="anneal gateway",
        description="People's hand on a run, and the door to the models. Every path but the health pages wants "
        "`authorization: Bearer TOKEN`.",
        openapi_url=None,  # made when it is asked for: _describe
        docs_url=None,
        redoc_url=None,
        # One span a request, with the caller's as its parent; health pages are asked every second and say nothing.
        telemetry={"operation_spans": False, "logs": False, "exclude": lambda scope: scope["path"] in _OPEN_PATHS},
    )

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "")
        if request.url.path not in _OPEN_PATHS and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            e = Unauthenticated("A bearer token is needed.", field="authorization")
            return _error(e, of_door=request.url.path in _DOOR_PATHS)
        return await call_next(request)

    @app.exception_handler(AnnealError)
    async def on_error(request: Request, e: AnnealError) -> Response:
        return _error(e, of_door=request.url.path in _DOOR_PATHS)

    @app.exception_handler(RequestValidationError)
    async def on_bad_input(request: Request, e: RequestValidationError) -> Response:
        first = e.errors()[0]
        where = [str(part) for part in first["loc"] if part not in ("body", "path", "query", "header")]
        return _error(InvalidArgument(str(first["msg"]), field=".".join(where) or "body"), of_door=False)

    @app.exception_handler(Exception)
    async def on_defect(request: Request, e: Exception) -> Response:
        log.error("A request failed unexpectedly", exc_info=e, extra={"path": request.url.path})
        return _error(Internal("The gateway failed; its log says more."))

    @app.get("/healthz", summary="The process answers", tags=["health"])
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", summary="The ledger's database answers: model calls can be accounted for", tags=["health"])
    async def readyz() -> Response:
        problem = await ready()
        return JSONResponse({"status": problem or "ok"}, status_code=503 if problem else 200)

    app.include_router(people(control))
    _add_door(app, door)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    @app.get("/openapi.json", summary="This description", tags=["health"])
    async def openapi() -> Response:
        document = app.openapi()
        # The framework promises 422 for bad input wherever there is some; here it is 400, in the shape of all errors.
        for methods in document["paths"].values():
            for call in methods.values():
                call["responses"].pop("422", None)
        return JSONResponse(document)


def _add_door(app: FastAPI, door: Door) -> None:
    @app.post("/v1/chat/completions", summary="One model call, in the shape of OpenAI's API", tags=["models"])
    async def chat_completions(request: Request) -> Response:
        body = await _body(request)
        h = request.headers
        caller = Caller(
            run_id=h.get("x-anneal-run", ""),
            item_id=h.get("x-anneal-item", ""),
            profile=h.get("x-anneal-profile", ""),
            role=h.get("x-anneal-role", ""),
        )
        if isinstance(body, dict) and body.get("stream"):
            return _EventStream(door.stream(caller, body))
        return JSONResponse(await door.complete(caller, body))

    @app.get("/v1/models", summary="Names of the models", tags=["models"])
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": _models(door)})

    @app.get("/v1/profiles", summary="Model profiles, with what each may do", tags=["models"])
    async def profiles() -> Response:
        return JSONResponse({"profiles": [_profile(door, name) for name, _ in door.profiles.items()]})


def _error(e: AnnealError, *, of_door: bool = True) -> Response:
    body = openai_shape(e) if of_door else api_shape(e)
    return JSONResponse(body, status_code=e.http_status, headers=retry_after(e))


async def _body(request: Request) -> Any:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_REQUEST_BYTES:
            raise InvalidArgument(f"The request is longer than {MAX_REQUEST_BYTES} bytes.")
    try:
        return json.loads(raw)
    except ValueError as e:
        raise InvalidArgument(f"The request is not JSON: {e}") from e


def _models(door: Door) -> list[dict[str, Any]]:
    names = {(profile.model_of(role), name) for name, profile in door.profiles.items() for role in ModelRole}
    return [{"id": model, "object": "model", "owned_by": name} for model, name in sorted(names)]


def _profile(door: Door, name: str) -> dict[str, Any]:
    profile = door.profiles.get(name)
    return {
        "name": name,
        "description": profile.description,
        "may": profile.may.value,
        "tools": profile.tools,
        "context_tokens": profile.context_tokens,
        "roles": {
            role.value: {"model": profile.model_of(role), "max_tokens": profile.role(role).max_tokens}
            for role in ModelRole
        },
        "limits": profile.limits.model_dump(),
        "circuit": door.circuit(profile),
        "problem": door.profiles.problem(name),
    }


class _EventStream(Response):
    """Passes event lines on. The generator runs in one task, and its first line decides the status."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        super().__init__()
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._pass_on(scope, receive, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()
            results = await asyncio.gather(work, gone, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with aclosing(self._lines) as lines:  # type: ignore[type-var]
                async for line in lines:
                    if not started:
                        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
                        await send({"type": "http.response.start", "status": 200, "headers": headers})
                        started = True
                    await send({"type": "http.response.body", "body": line.encode() + b"\n", "more_body": True})
        except AnnealError as e:
            if not started:
                await _error(e)(scope, receive, send)
                return
            # Too late for a status: the error is the stream's last event, and there is no [DONE].
            event = f"data: {json.dumps(openai_shape(e))}\n\n"
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
