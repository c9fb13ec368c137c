"""Effects on a target: a script that runs at most once under a key, with markers that outlive every process of ours.

The markers live under /var/lib/anneal/effects/KEY on the target (root only). The folder appears with its `started`
marker in one rename, after the script's bytes were checked against their SHA-256; `finished` appears in one rename
after the script ended. Whoever looks later can therefore tell never started, running, interrupted and finished apart.
"""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from anneal_runtime.errors import FailedPrecondition, InvalidArgument, TargetUnreachable

from anneal_skillkit.interfaces import ExecResult, TargetSession

EFFECTS_ROOT = "/var/lib/anneal/effects"
OUTPUT_LIMIT: Final = 64 * 1024
# How long a target that stopped answering while a script ran may take to answer again.
REATTACH_S: Final = 6.0
_REATTACH_STEP_S: Final = 0.3
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,127}")
_WRAPPER: Final = files("anneal_skillkit").joinpath("effect_wrapper.sh").read_text()


@dataclass(frozen=True, kw_only=True)
class NeverStarted:
    """The effect did not happen: it may be carried out."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The effect began. running: it is still at work; else it was cut off and nobody knows how far it came."""

    running: bool


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The effect ended; output is what the script wrote, cut to a bound."""

    exit_code: int
    timed_out: bool
    output: bytes
    truncated: bool


Markers = NeverStarted | Started | Finished


class EffectInterrupted(FailedPrecondition):
    """The script began under this key and did not end: restore the target before trying again."""

    reason = "effect_interrupted"


async def run_effect(session: TargetSession, key: str, script: bytes, *, timeout_s: float) -> ExecResult:
    """Runs a bash script as root under the effect's key, once: a second call gives the first one's result.

    Survives the loss of the connection: it reattaches by a new session and goes on waiting. Raises TargetUnreachable
    when the target does not come back, EffectInterrupted when the script was cut off, FailedPrecondition when the
    target cannot store the script (disk full).
    """
    digest = hashlib.sha256(script).hexdigest()
    # Whole seconds: the wrapper compares them with the clock to tell a timeout from an exit code 124.
    seconds = max(1, round(timeout_s))
    argv = ["run", key, digest, str(seconds), str(OUTPUT_LIMIT)]
    try:
        markers = await _call(session, argv, stdin=script, timeout_s=seconds + 10.0)
    except TargetUnreachable:
        markers = await _reattach(session, argv, script, key, seconds)
    if isinstance(markers, Started) and markers.running:
        markers = await _call(session, ["wait", key, str(seconds), str(OUTPUT_LIMIT)], timeout_s=seconds + 10.0)
    return _result(markers, key)


async def read_markers(session: TargetSession, key: str) -> Markers:
    """What the target knows of an effect."""
    return await _call(session, ["read", key, str(OUTPUT_LIMIT)])


async def begin_effect(session: TargetSession, key: str) -> Markers | None:
    """Leaves the start marker of an effect that the controller drives itself; the markers there already, if any."""
    state, *_ = await _exchange(session, ["begin", key])
    return None if state == "begun" else await read_markers(session, key)


async def end_effect(session: TargetSession, key: str, result: ExecResult) -> None:
    """Leaves the end marker of an effect begun by begin_effect."""
    argv = ["end", key, str(result.exit_code), str(int(result.timed_out))]
    await _exchange(session, argv, stdin=result.stdout[-OUTPUT_LIMIT:])


async def _reattach(session: TargetSession, argv: list[str], script: bytes, key: str, seconds: int) -> Markers:
    """Opens a new session and waits there for the end of the effect; runs it when it had not begun."""
    other = await _reconnect(session)
    try:
        markers = await _call(other, ["wait", key, str(seconds), str(OUTPUT_LIMIT)], timeout_s=seconds + 10.0)
        if isinstance(markers, NeverStarted):
            return await _call(other, argv, stdin=script, timeout_s=seconds + 10.0)
        return markers
    finally:
        await other.close()


async def _reconnect(session: TargetSession) -> TargetSession:
    clock = asyncio.get_running_loop().time
    give_up = clock() + REATTACH_S
    while True:
        try:
            return await session.fresh()
        except TargetUnreachable:
            if clock() >= give_up:
                raise
            await asyncio.sleep(_REATTACH_STEP_S)


def _result(markers: Markers, key: str) -> ExecResult:
    match markers:
        case Finished():
            return ExecResult(
                exit_code=markers.exit_code,
                stdout=markers.output,
                stderr=b"",
                timed_out=markers.timed_out,
                truncated=markers.truncated,
            )
        case Started():
            raise EffectInterrupted(f"effect {key} began on the target and did not end")
        case NeverStarted():
            raise TargetUnreachable(f"effect {key} left no trace on the target")


async def _call(session: TargetSession, argv: list[str], *, stdin: bytes = b"", timeout_s: float = 30.0) -> Markers:
    state, code, late, cut, output = await _exchange(session, argv, stdin=stdin, timeout_s=timeout_s)
    match state:
        case "finished":
            return Finished(exit_code=code, timed_out=late, output=output, truncated=cut)
        case "running" | "interrupted":
            return Started(running=state == "running")
        case _:
            return NeverStarted()


async def _exchange(
    session: TargetSession, argv: list[str], *, stdin: bytes = b"", timeout_s: float = 30.0
) -> tuple[str, int, bool, bool, bytes]:
    """One call of the wrapper: state, exit code, timed out, output cut, output."""
    if not _KEY.fullmatch(argv[1]):
        raise InvalidArgument("an effect key is 8 to 128 letters, digits, dashes and underscores", field="effect_key")
    name = session.access.name
    done = await session.run(
        ["bash", "-c", _WRAPPER, "anneal-effect", argv[0], argv[1], EFFECTS_ROOT, *argv[2:]],
        stdin=stdin,
        timeout_s=timeout_s,
        limit=4 * OUTPUT_LIMIT,
    )
    line, _, output = done.stdout.partition(b"\n")
    words = line.decode("ascii", "replace").split()
    if len(words) != 5 or words[0] != "anneal-effect":
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-300:]
        raise FailedPrecondition(f"{name}: the effect wrapper ended with {done.exit_code} and no report: {said}")
    if words[1] == "refused":
        raise FailedPrecondition(f"{name}: {output.decode('utf-8', 'replace').strip()[:300]}", field="target")
    return words[1], int(words[2]), words[3] == "1", words[4] == "1", output
