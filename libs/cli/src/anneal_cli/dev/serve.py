"""Runs the tree from the first port check to the last process: what `anneal dev` does in the foreground."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from anneal_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from anneal_runtime.errors import AnnealError

from anneal_cli.dev.children import Child, Entry
from anneal_cli.dev.embedded import ServerPart
from anneal_cli.dev.logs import LogFile
from anneal_cli.dev.plan import Plan
from anneal_cli.dev.ports import require_free
from anneal_cli.dev.state import DevState, Lock, start_time, write_state
from anneal_cli.dev.tree import Tree, entry_of
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Where `anneal dev` speaks: phase lines, every log entry, and the word that it is ready."""

    say: Callable[[str], None]
    entry: Callable[[Entry], None]
    ready: Callable[[DevState, float], None]


class Server:
    """One life of `anneal dev`. The lock is held by the caller's `with`."""

    def __init__(self, home: Home, plan: Plan, voice: Voice) -> None:
        self._home = home
        self._plan = plan
        self._voice = voice
        self._log = LogFile(home.log_file)
        self._tree = Tree(plan, report=self._say, emit=self._emit, changed=self._publish)
        self._state = DevState(
            pid=os.getpid(),
            started=start_time(os.getpid()) or time.time(),
            port_base=plan.port_base,
            phase="starting",
            ports=plan.ports(),
            model=plan.model_address(),
        )

    def _say(self, line: str) -> None:
        self._log.write(entry_of("dev", line))
        self._voice.say(line)

    def _emit(self, entry: Entry) -> None:
        self._log.write(entry)
        self._voice.entry(entry)

    def _publish(self, phase: str = "") -> None:
        self._state = replace(self._state, children=self._tree.children(), phase=phase or self._state.phase)
        write_state(self._home, self._state)

    async def run(self) -> None:
        """Starts, waits for SIGINT, SIGTERM or SIGHUP, ends everything. Raises CliError where the tree cannot run."""
        wanted_end = asyncio.Event()
        self._on_signals(wanted_end)
        starting = asyncio.create_task(self._start(), name="start of the tree")
        ended = asyncio.create_task(wanted_end.wait(), name="wait for the end")
        try:
            await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                either: set[asyncio.Future[Any]] = {ended, self._tree.failed}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._tree.failed.done() and not wanted_end.is_set():
                raise self._tree.failed.result()
        finally:
            starting.cancel()
            ended.cancel()
            await asyncio.gather(starting, ended, return_exceptions=True)
            await self._end()

    def _on_signals(self, wanted_end: asyncio.Event) -> None:
        def on_signal() -> None:
            if wanted_end.is_set():
                # Asked twice: the kernel ends the children with us.
                os._exit(int(ExitCode.INTERRUPTED))
            wanted_end.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)

    async def _start(self) -> None:
        require_free(self._plan.ports(), port_base=self._plan.port_base)
        self._publish()
        dsn = await self._start_servers()
        await self._tree.add_services(dsn, dict(os.environ))
        if self._plan.runs_model:
            await self._tree.add("model", self._start_model, optional=True)
        await self._tree.until_ready()
        self._publish("ready")
        self._voice.ready(self._state, time.monotonic() - self._tree.begun)

    async def _start_servers(self) -> str:
        """Postgres and NATS at once. Returns the address of the database."""
        postgres = EmbeddedPostgres(self._plan.home / "postgres", self._plan.port("postgres"), self._plan.token)
        nats = EmbeddedNats(self._plan.home / "nats", self._plan.port("nats"), self._plan.token)

        async def one(name: str, server: EmbeddedPostgres | EmbeddedNats) -> None:
            await self._tree.add(name, lambda: ServerPart.started(name, server, self._emit))
            took = time.monotonic() - self._tree.begun
            self._say(f"{name:<10} ready after {took:.1f} s on {self._plan.address(name)}")

        try:
            await asyncio.gather(one("postgres", postgres), one("nats", nats))
        except AnnealError as e:
            raise CliError(message=e.message, field=e.field, hint="anneal doctor checks this machine") from e
        except OSError as e:
            hint = f"is {self._plan.home} whole and writable? a new data folder: anneal --home DIR dev"
            raise CliError(message=f"the embedded servers cannot start: {e}", hint=hint) from e
        return postgres.dsn

    async def _start_model(self) -> Child:
        # The least urgent of all: nice, and with one thread (its own default).
        command = ["nice", "-n", "10", sys.executable, "-m", "anneal_cli.model_server"]
        command += ["--port", str(self._plan.port("model")), "--model", self._plan.local_model]
        return await Child.spawn("model", command, env=dict(os.environ), emit=self._emit)

    async def _end(self) -> None:
        self._publish("stopping")
        self._say("stopping")
        begun = time.monotonic()
        await self._tree.stop()
        self._say(f"stopped after {time.monotonic() - begun:.1f} s; no process is left")
        self._log.close()


def serve(home: Home, plan: Plan, voice: Voice) -> None:
    """Takes the lock, runs until asked to end. Raises CliError: already running, port taken, a part cannot run."""
    with Lock(home) as lock:
        if lock.recovered:
            voice.say(f"ended what a killed predecessor left: {', '.join(lock.recovered)}")
        asyncio.run(_serve(home, plan, voice))


async def _serve(home: Home, plan: Plan, voice: Voice) -> None:
    await Server(home, plan, voice).run()
