"""Uvicorn inside the service's own loop: it takes no signals, and a taken port is a typed error."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from anneal_runtime.errors import FailedPrecondition
from fastapi import FastAPI


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The service's runner owns the signals."""
        yield


class HttpListener:
    """An HTTP server on listen (host:port; port 0 picks one)."""

    def __init__(self, app: FastAPI, listen: str) -> None:
        self._listen = listen
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            loop="none",
            server_header=False,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Returns when it is listening. Raises FailedPrecondition for a taken port."""
        host, _, port = self._listen.rpartition(":")
        try:
            sock = socket.create_server((host.strip("[]"), int(port)), family=_family(host), backlog=512)
        except OSError as e:
            problem = f"cannot listen on {self._listen}: {e.strerror or e}; is the port taken?"
            raise FailedPrecondition(problem, field="http_listen") from e
        self.port = sock.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise FailedPrecondition("the HTTP server ended at its start", field="http_listen")
            await asyncio.sleep(0.005)

    async def stop(self, grace_s: float) -> None:
        """No new connections; calls under way get grace_s seconds."""
        if self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        await self._task


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
