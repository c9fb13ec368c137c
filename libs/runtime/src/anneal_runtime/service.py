"""Start, run and stop of a service process."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import uvloop

from anneal_runtime import faults, telemetry
from anneal_runtime.errors import AnnealError

T = TypeVar("T")
log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
# sysexits.h EX_CONFIG: settings or surroundings are wrong; restarting alone will not help.
EXIT_CONFIG = 78


class App(Protocol):
    """A service, composed and not yet running."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def run(app_factory: Callable[[], Awaitable[App]], *, service: str) -> int:
    """Runs until SIGTERM or SIGINT, then stops gracefully; a second signal ends it at once. Returns the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(app_factory, service))


async def _main(app_factory: Callable[[], Awaitable[App]], service: str) -> int:
    stopping = asyncio.Event()
    _on_signals(stopping)
    try:
        return await _run_until(app_factory, stopping, service)
    except AnnealError as e:
        log.error("%s cannot run: %s", service, e, extra={"reason": e.reason, "field": e.field})
        return EXIT_FAILED if e.retryable else EXIT_CONFIG
    except Exception:
        log.exception("%s failed", service)
        return EXIT_FAILED
    finally:
        telemetry.shutdown()


def _on_signals(stopping: asyncio.Event) -> None:
    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


async def _run_until(app_factory: Callable[[], Awaitable[App]], stopping: asyncio.Event, service: str) -> int:
    """Starts the app and waits; a signal during the start cancels the start."""
    app = await _unless(stopping, app_factory())
    if app is None:
        return EXIT_OK
    faults.check_armed(service)
    try:
        if await _unless(stopping, _started(app)):
            await stopping.wait()
    finally:
        await app.stop()
    return EXIT_OK


async def _started(app: App) -> bool:
    await app.start()
    return True


async def _unless(stopping: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of work, or None (work cancelled) when stopping comes first."""
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for one in (task, stop):
            one.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
