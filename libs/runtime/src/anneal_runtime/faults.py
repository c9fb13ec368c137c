"""Named fault points: places in production code where a test can make the process fail. Free when off.

Armed by the environment, `ANNEAL_FAULTS="supervisor.after_commit=kill,worker.before_apply=sleep:2"`, or by `arm()`.
Actions: `kill` (SIGKILL to this process), `stop` (SIGSTOP: it sleeps until somebody sends SIGCONT), `raise`
(FaultInjected), `sleep:SECONDS`, `block` (until cancelled).
`ACTION@PATH` fires once over all processes: whoever creates the file PATH. That is how a test kills a service that
is restarted with the same environment.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_runtime.errors import InvalidArgument

ENV = "ANNEAL_FAULTS"
_ACTIONS = frozenset({"kill", "stop", "raise", "sleep", "block"})
_SERVICES = frozenset({"supervisor", "worker", "evaluator", "gateway", "memory", "checkpoint"})


class FaultInjected(RuntimeError):
    """Raised by a fault point armed with `raise`: stands for any unexpected failure."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What an armed point does. seconds is for sleep alone; once is the marker file, None: every time."""

    action: str
    seconds: float = 0.0
    once: Path | None = None


_armed: dict[str, Fault] = {}
_declared: set[str] = set()


def declare(name: str) -> str:
    """Makes a fault point known and returns its name. Call at import time, beside the code that has the point."""
    _declared.add(name)
    return name


def __getattr__(name: str) -> Any:
    if name == "KNOWN":
        return frozenset(_declared)
    raise AttributeError(name)


def parse(spec: str) -> Mapping[str, Fault]:
    """Reads `name=action[:seconds][@path],...`. Raises InvalidArgument naming the part that is wrong."""
    faults: dict[str, Fault] = {}
    for part in filter(None, (p.strip() for p in spec.split(","))):
        name, eq, rest = part.partition("=")
        action_arg, _, marker = rest.partition("@")
        action, _, arg = action_arg.partition(":")
        if not (name and eq and action in _ACTIONS) or bool(arg) != (action == "sleep"):
            raise InvalidArgument(f"cannot read {part!r}: want name=kill|stop|raise|block|sleep:SECONDS", field=ENV)
        try:
            seconds = float(arg) if arg else 0.0
        except ValueError as e:
            raise InvalidArgument(f"{arg!r} in {part!r} is no number of seconds", field=ENV) from e
        faults[name] = Fault(action=action, seconds=seconds, once=Path(marker) if marker else None)
    return faults


def arm(spec: str) -> None:
    """Arms the points of spec in this process; replaces what was armed. Empty: all off."""
    faults = parse(spec)
    _armed.clear()
    _armed.update(faults)


def check_armed(service: str) -> None:
    """Raises InvalidArgument when a point is armed that no imported module declares: it would never fire.

    Points named after another service are for that one to check: `anneal dev` gives all of them one environment.
    """
    others = _SERVICES - {service}
    unknown = sorted(name for name in set(_armed) - _declared if name.partition(".")[0] not in others)
    if unknown:
        raise InvalidArgument(f"no such fault point: {', '.join(unknown)}", field=ENV)


async def faultpoint(name: str) -> None:
    """Does what the point is armed with; nothing when it is off."""
    if not _armed:
        return
    fault = _armed.get(name)
    if fault is not None and _claims(fault):
        await _fire(name, fault)


def _claims(fault: Fault) -> bool:
    if fault.once is None:
        return True
    try:
        os.close(os.open(fault.once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


async def _fire(name: str, fault: Fault) -> None:
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise FaultInjected(name)
        case "sleep":
            await asyncio.sleep(fault.seconds)
        case _:
            await asyncio.Event().wait()


arm(os.environ.get(ENV, ""))
