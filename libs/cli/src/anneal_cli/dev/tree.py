"""The process tree of embedded mode: starting order, readiness, restarts, the end."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from anneal_cli.dev.children import Child, Entry
from anneal_cli.dev.health import is_serving, until_serving
from anneal_cli.dev.plan import SERVICES, Plan
from anneal_cli.dev.state import ChildInfo, start_time
from anneal_cli.exits import CliError, ExitCode

READY_TIMEOUT_S = 60.0
# A child may die and come back; more often than this within the window, and something is wrong for good.
MAX_DEATHS, DEATH_WINDOW_S = 5, 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
# A little longer than a service's own grace (10 s) for ending what it is at.
STOP_GRACE_S = 12.0

Report = Callable[[str], None]


class Running(Protocol):
    """What the tree needs of something that runs."""

    name: str
    pid: int
    tail: deque[str]
    # Set by wait(): starting it again cannot help.
    hopeless: bool

    async def wait(self) -> str: ...
    async def stop(self, grace_s: float) -> None: ...


Start = Callable[[], Awaitable[Running]]


@dataclass(kw_only=True)
class Part:
    """One member of the tree and how to start it again."""

    name: str
    start: Start
    # The tree is ready without it, and goes on without it.
    optional: bool = False
    running: Running | None = None
    restarts: int = 0
    deaths: deque[float] = field(default_factory=deque)

    def note_death(self, now: float) -> bool:
        """Records an end nobody asked for. True: too many of them within the window."""
        self.deaths.append(now)
        while self.deaths and now - self.deaths[0] > DEATH_WINDOW_S:
            self.deaths.popleft()
        return len(self.deaths) > MAX_DEATHS

    def pause_s(self) -> float:
        """How long to wait before the next start: doubles with each recent death."""
        return min(FIRST_PAUSE_S * 2.0 ** max(0, len(self.deaths) - 1), LONGEST_PAUSE_S)


class Tree:
    """Starts the parts, keeps them running, ends them. changed is called whenever a pid changes."""

    def __init__(
        self, plan: Plan, *, report: Report, emit: Callable[[Entry], None], changed: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._report = report
        self._emit = emit
        self._changed = changed
        self._parts: dict[str, Part] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self.begun = time.monotonic()
        # Set with the reason once the tree cannot go on.
        self.failed: asyncio.Future[CliError] = asyncio.get_running_loop().create_future()

    def children(self) -> tuple[ChildInfo, ...]:
        """The children as they are now, for dev.json."""
        found = [(part, start_time(part.running.pid)) for part in self._parts.values() if part.running]
        return tuple(
            ChildInfo(name=part.name, pid=part.running.pid, started=started, restarts=part.restarts)
            for part, started in found
            if part.running and started is not None
        )

    async def add(self, name: str, start: Start, *, optional: bool = False) -> None:
        """Starts a part and keeps it running from then on. Errors of the first start go to the caller."""
        part = Part(name=name, start=start, optional=optional)
        part.running = await start()
        self._parts[name] = part
        self._changed()
        self._keepers[name] = asyncio.create_task(self._keep(part), name=f"keeper of {name}")

    async def add_services(self, dsn: str, environ: Mapping[str, str]) -> None:
        """Starts the six services at once."""

        def starter(name: str) -> Start:
            env = self._plan.environment(name, dsn=dsn, inherited=environ)
            return lambda: Child.spawn(name, self._plan.command(name), env=env, emit=self._emit)

        await asyncio.gather(*(self.add(name, starter(name)) for name in SERVICES))

    async def until_ready(self, names: Sequence[str] = SERVICES) -> None:
        """Waits until all of them serve. Raises CliError after 60 s, or when one of them cannot be kept running."""

        async def one(name: str) -> None:
            await until_serving(self._plan.address(name))
            self._report(f"{name:<10} ready after {time.monotonic() - self.begun:.1f} s on {self._plan.address(name)}")

        waits = {name: asyncio.create_task(one(name)) for name in names}
        all_up = asyncio.gather(*waits.values())
        try:
            either: set[asyncio.Future[Any]] = {all_up, self.failed}
            await asyncio.wait(either, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                raise self.failed.result()
            if not all_up.done():
                raise self._too_slow([name for name, wait in waits.items() if not wait.done()])
        finally:
            all_up.cancel()
            await asyncio.gather(all_up, return_exceptions=True)

    def _too_slow(self, missing: Sequence[str]) -> CliError:
        tails = [line for name in missing for line in self._tail(name)]
        return CliError(
            message=f"not ready after {READY_TIMEOUT_S:.0f} s: {', '.join(missing)}\n" + "\n".join(tails),
            hint="anneal dev logs --service NAME shows more",
        )

    def _tail(self, name: str) -> list[str]:
        part = self._parts.get(name)
        return [f"    {line}" for line in part.running.tail] if part and part.running else []

    async def _keep(self, part: Part) -> None:
        """Starts the part again whenever it ends, until that happens too often or the tree is ended."""
        while part.running is not None:
            how = await part.running.wait()
            if self._stopping.is_set():
                return
            tail = list(part.running.tail)
            await part.running.stop(0.0)
            if part.note_death(time.monotonic()) or part.running.hopeless:
                self._give_up(part, how, tail)
                return
            pause = part.pause_s()
            self._report(f"{part.name:<10} {how}; starting it again in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return
            await self._restart(part)

    async def _restart(self, part: Part) -> None:
        try:
            part.running = await part.start()
        except Exception as e:  # whatever hinders a start counts as one more death of this part
            part.running = _NeverStarted(part.name, f"could not be started: {e}")
        if self._stopping.is_set():
            await part.running.stop(STOP_GRACE_S)
        part.restarts += 1
        self._changed()

    def _give_up(self, part: Part, how: str, tail: Sequence[str]) -> None:
        part.running = None
        self._changed()
        times = f", {len(part.deaths)} times within {DEATH_WINDOW_S:.0f} s" if len(part.deaths) > 1 else ""
        often = f"{part.name} {how}{times}"
        if part.optional:
            self._report(f"{often}; going on without it (anneal dev logs --service {part.name})")
            return
        lines = "\n".join(f"    {line}" for line in tail)
        if not self.failed.done():
            self.failed.set_result(
                CliError(
                    message=f"{often}; everything is stopped. Its last lines:\n{lines}",
                    code=ExitCode.NOT_HELD,
                    hint=f"anneal dev logs --service {part.name} shows more; anneal doctor checks this machine",
                )
            )

    async def serving(self) -> dict[str, bool]:
        """Health of the services now."""
        answers = await asyncio.gather(*(is_serving(self._plan.address(name)) for name in SERVICES))
        return dict(zip(SERVICES, answers, strict=True))

    async def stop(self) -> None:
        """Ends the services at once, then what they stand on, newest first. Leaves no process."""
        self._stopping.set()
        services = [part for name, part in self._parts.items() if name in SERVICES]
        below = [part for name, part in reversed(self._parts.items()) if name not in SERVICES]
        await asyncio.gather(*(self._end(part) for part in services))
        for part in below:
            await self._end(part)

    async def _end(self, part: Part) -> None:
        if part.running is not None:
            await part.running.stop(STOP_GRACE_S)
        # Its keeper may be in the middle of a restart: it ends what it started.
        await asyncio.gather(self._keepers[part.name], return_exceptions=True)
        part.running = None


class _NeverStarted:
    """Stands for a start that failed: already ended, with the reason as its last line."""

    hopeless = False

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.pid = -1
        self.tail: deque[str] = deque([why])

    async def wait(self) -> str:
        return self.tail[-1]

    async def stop(self, grace_s: float) -> None:
        return None


def entry_of(service: str, message: str) -> dict[str, Any]:
    """A log entry of `anneal dev` itself."""
    return {"ts": datetime.now(UTC).isoformat(), "level": "INFO", "service": service, "msg": message}
