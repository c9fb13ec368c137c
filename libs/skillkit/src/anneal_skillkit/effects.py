"""Effects on a target: a script that runs at most once under a key, with markers that outlive every process of ours.

The markers live under /var/lib/anneal/effects/KEY on the target (root only). The folder appears with its `started`
marker in one rename, after the script's bytes were checked against their SHA-256; `finished` appears in one rename
after the script ended. Whoever looks later can therefore tell never started, running, interrupted and finished apart.

Before anything starts the target itself checks the permit (`Permit`): it refuses whoever was overtaken, and lets one
effect at a time be at work. A guarded effect arms a timer of systemd's there first, which takes it back by itself.
"""

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from anneal_runtime.errors import Conflict, FailedPrecondition, InvalidArgument, TargetUnreachable, Unavailable

from anneal_skillkit.interfaces import ExecResult, Permit, TargetSession

EFFECTS_ROOT = "/var/lib/anneal/effects"
# What a target remembers until its next boot; and the shells of what runs from outside, which every login may reach.
STATE_ROOT = "/run/anneal"
SHELLS_ROOT = "/run/anneal-shells"
# Where systemd finds the dead-man timers.
UNITS_ROOT = "/etc/systemd/system"
OUTPUT_LIMIT: Final = 64 * 1024
# How long an effect waits for another one that is still at work on the target.
BUSY_S: Final = 30
# How long the undo script of a dead-man timer may take.
UNDO_S: Final = 20
# While a script runs its target is asked whether it still answers: when first, how often, when that counts as a miss.
_FIRST_LOOK_S: Final = 0.5
_EVERY_S: Final = 1.0
_LOOK_S: Final = 1.5
_MISSES: Final = 2
# How long a target that stopped answering while a script ran may take to answer again.
REATTACH_S: Final = 2.5
_REATTACH_STEP_S: Final = 0.3
# A new session to a target that drops what we send: more would eat up the time to reattach.
_RECONNECT_S: Final = 2.5
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,127}")
_WRAPPER: Final = "".join(
    files("anneal_skillkit").joinpath(name).read_text() for name in ("effect_guard.sh", "effect_wrapper.sh")
)


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


@dataclass(frozen=True, kw_only=True)
class TakenBack:
    """The dead-man timer ran the undo script; exit_code and output are the undo's."""

    exit_code: int
    output: bytes


Markers = NeverStarted | Started | Finished | TakenBack


class EffectInterrupted(FailedPrecondition):
    """The script began under this key and did not end: restore the target before trying again."""

    reason = "effect_interrupted"


class EffectTakenBack(FailedPrecondition):
    """The dead-man timer on the target took the change back: nobody showed in time that the target answers."""

    reason = "effect_taken_back"

    @property
    def whole(self) -> bool:
        """False: its undo script failed, and nobody knows what is left of the change."""
        return self.details.get("undo_exit", "0") == "0"


class Fenced(Conflict):
    """The target refused to start the effect: the permit was overtaken. Who is still wanted asks the ledger again."""

    reason = "fenced"
    retryable = True


class TargetBusy(Unavailable):
    """Another effect is still at work on the target."""

    reason = "target_busy"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Which boot of the target this is, and how far into it, in hundredths of a second."""

    boot: str
    uptime: int


async def standing(session: TargetSession) -> Standing:
    """Asked before the ledger is asked for leave: what happens to the target in between voids the permit.

    Raises TargetUnreachable, also where the connection is dead and nobody has noticed.
    """
    asked = ["cat", "/proc/sys/kernel/random/boot_id", "/proc/uptime"]
    try:
        async with asyncio.timeout(_RECONNECT_S):
            done = await session.run(asked, sudo=False, timeout_s=_RECONNECT_S)
    except TimeoutError as e:
        raise TargetUnreachable(f"{session.access.name} does not answer any more") from e
    words = done.stdout.decode("ascii", "replace").split()
    if done.exit_code or len(words) != 3 or not re.fullmatch(r"\d+\.\d\d", words[1]):
        raise FailedPrecondition(f"{session.access.name}: the target does not tell its boot and uptime", field="target")
    return Standing(boot=words[0], uptime=int(words[1].replace(".", "")))


async def run_effect(session: TargetSession, permit: Permit, script: bytes, *, timeout_s: float) -> ExecResult:
    """Runs a bash script as root under the permit's key, once: a second call gives the first one's result.

    Survives the loss of the connection: it reattaches by a new session and goes on waiting, for a guarded effect until
    its timer has had its time. Raises Fenced, TargetBusy, TargetUnreachable when the target does not come back,
    EffectInterrupted when the script was cut off, EffectTakenBack, FailedPrecondition when the target cannot store the
    script (disk full).
    """
    # Whole seconds: the wrapper compares them with the clock to tell a timeout from an exit code 124.
    seconds = max(1, round(timeout_s))
    undo = permit.guard.undo if permit.guard else b""
    sent = script + undo
    words = {**_checked(permit, seconds), "sha": hashlib.sha256(sent).hexdigest()}
    last_s = seconds + BUSY_S + 10.0
    try:
        markers = await _watched(session, _call(session, "run", permit.key, words, stdin=sent, timeout_s=last_s))
    except TargetUnreachable:
        markers = await _reattach(session, permit, words, sent, seconds)
    if isinstance(markers, Started) and markers.running:
        waiting = _call(session, "wait", permit.key, {"seconds": seconds}, timeout_s=seconds + 10.0)
        try:
            markers = await _watched(session, waiting)
        except TargetUnreachable:
            markers = await _reattach(session, permit, words, sent, seconds)
    return result_of(markers, permit.key)


async def read_markers(session: TargetSession, key: str) -> Markers:
    """What the target knows of an effect."""
    return await _call(session, "read", key, {})


async def begin_effect(session: TargetSession, permit: Permit, *, timeout_s: float) -> Markers | None:
    """Leaves the start marker of an effect that the controller drives itself; the markers there already, if any."""
    undo = permit.guard.undo if permit.guard else b""
    words = {**_checked(permit, max(1, round(timeout_s))), "sha": hashlib.sha256(undo).hexdigest()}
    answer = await _exchange(session, "begin", permit.key, words, stdin=undo, timeout_s=BUSY_S + 10.0)
    return None if answer[0] == "begun" else _markers(*answer)


async def end_effect(session: TargetSession, permit: Permit, result: ExecResult) -> None:
    """Leaves the end marker of an effect begun by begin_effect."""
    words = {
        "code": result.exit_code,
        "late": int(result.timed_out),
        "after": permit.guard.after_s if permit.guard else 0,
    }
    await _exchange(session, "end", permit.key, words, stdin=result.stdout[-OUTPUT_LIMIT:])


def shell_of(permit: Permit) -> str:
    """The shell by which an effect driven from outside starts each of its steps; gone as soon as it is overtaken."""
    return f"{SHELLS_ROOT}/{permit.key}"


async def disarm(session: TargetSession, key: str) -> TakenBack | None:
    """Tells the dead-man timer of an effect that the target answers; what it did where that comes too late."""
    state, code, _, _, output = await _exchange(session, "disarm", key, {}, timeout_s=UNDO_S + 20.0)
    return TakenBack(exit_code=code, output=output) if state == "reverted" else None


def _checked(permit: Permit, seconds: int) -> dict[str, object]:
    """A permit in the words of the wrapper."""
    guard = permit.guard
    return {
        "seconds": seconds,
        "busy_s": BUSY_S,
        "ledger": permit.ledger,
        "token": permit.token,
        "seq": permit.command_seq,
        "at_boot": permit.boot,
        "until": permit.until,
        "undoes": permit.undoes,
        "undo_size": len(guard.undo) if guard else 0,
        "after": guard.after_s if guard else 0,
        "required": int(guard.required) if guard else 0,
    }


async def _watched(session: TargetSession, call: Coroutine[Any, Any, Markers]) -> Markers:
    """The call's answer. Raises TargetUnreachable as soon as the target no longer answers beside it."""
    answer, silence = asyncio.ensure_future(call), asyncio.ensure_future(_silence(session))
    try:
        await asyncio.wait({answer, silence}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise TargetUnreachable(f"{session.access.name} stopped answering while an effect was at work on it")
        return answer.result()
    finally:
        answer.cancel()
        silence.cancel()
        await asyncio.gather(answer, silence, return_exceptions=True)


async def _silence(session: TargetSession) -> None:
    """Returns when the target has not answered for a while: a connection alone notices that much later."""
    await asyncio.sleep(_FIRST_LOOK_S)
    misses = 0
    while misses < _MISSES:
        try:
            async with asyncio.timeout(_LOOK_S):
                await session.run(["true"], sudo=False, timeout_s=_LOOK_S)
        except (TimeoutError, TargetUnreachable):
            misses += 1
            continue
        misses = 0
        await asyncio.sleep(_EVERY_S)


async def _reattach(
    session: TargetSession, permit: Permit, words: Mapping[str, object], sent: bytes, seconds: int
) -> Markers:
    """Opens a new session and waits there for the end of the effect; runs it when it had not begun."""
    guard = permit.guard
    patience = REATTACH_S if guard is None else seconds + guard.after_s + UNDO_S + 5.0
    other = await _reconnect(session, patience)
    try:
        waiting = {"seconds": seconds}
        markers = await _call(other, "wait", permit.key, waiting, timeout_s=seconds + UNDO_S + 20.0)
        if isinstance(markers, NeverStarted):
            return await _call(other, "run", permit.key, words, stdin=sent, timeout_s=seconds + BUSY_S + 10.0)
        return markers
    finally:
        await other.close()
        # Half-dead: whoever took it next would wait for it.
        await session.close()


async def _reconnect(session: TargetSession, patience_s: float) -> TargetSession:
    clock = asyncio.get_running_loop().time
    give_up = clock() + patience_s
    while True:
        try:
            async with asyncio.timeout(min(_RECONNECT_S, max(1.0, give_up - clock()))):
                return await session.fresh()
        except (TargetUnreachable, TimeoutError) as e:
            if clock() >= give_up:
                raise TargetUnreachable(f"{session.access.name} does not answer any more: {e or 'timeout'}") from e
            await asyncio.sleep(_REATTACH_STEP_S)


def result_of(markers: Markers, key: str) -> ExecResult:
    """The result that markers tell of. Raises EffectInterrupted, EffectTakenBack, TargetUnreachable."""
    match markers:
        case Finished():
            return ExecResult(
                exit_code=markers.exit_code,
                stdout=markers.output,
                stderr=b"",
                timed_out=markers.timed_out,
                truncated=markers.truncated,
            )
        case TakenBack():
            how = (
                "took the change back"
                if markers.exit_code == 0
                else f"could not: its undo ended with {markers.exit_code}"
            )
            raise EffectTakenBack(
                f"effect {key[:12]}: no new session came in time, and the dead-man timer on the target {how}",
                details={"undo_exit": str(markers.exit_code)},
            )
        case Started():
            raise EffectInterrupted(f"effect {key[:12]} began on the target and did not end")
        case NeverStarted():
            raise TargetUnreachable(f"effect {key[:12]} left no trace on the target")


async def _call(
    session: TargetSession,
    mode: str,
    key: str,
    words: Mapping[str, object],
    *,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
) -> Markers:
    return _markers(*await _exchange(session, mode, key, words, stdin=stdin, timeout_s=timeout_s))


def _markers(state: str, code: int, late: bool, cut: bool, output: bytes) -> Markers:
    match state:
        # Idle: an undo that found nothing left to take back; its code says how that ended before.
        case "finished" | "idle":
            return Finished(exit_code=code, timed_out=late, output=output, truncated=cut)
        case "reverted":
            return TakenBack(exit_code=code, output=output)
        case "running" | "interrupted":
            return Started(running=state == "running")
        case _:
            return NeverStarted()


async def _exchange(
    session: TargetSession,
    mode: str,
    key: str,
    words: Mapping[str, object],
    *,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
) -> tuple[str, int, bool, bool, bytes]:
    """One call of the wrapper: state, exit code, timed out, output cut, output. Raises Fenced, TargetBusy."""
    if not _KEY.fullmatch(key):
        raise InvalidArgument("an effect key is 8 to 128 letters, digits, dashes and underscores", field="effect_key")
    name = session.access.name
    places = {"state": STATE_ROOT, "shells": SHELLS_ROOT, "units": UNITS_ROOT}
    arguments = [f"{k}={v}" for k, v in {**places, "limit": OUTPUT_LIMIT, "undo_s": UNDO_S, **words}.items()]
    done = await session.run(
        ["bash", "-c", _WRAPPER, "anneal-effect", mode, key, EFFECTS_ROOT, *arguments],
        stdin=stdin,
        timeout_s=timeout_s,
        limit=4 * OUTPUT_LIMIT,
    )
    line, _, output = done.stdout.partition(b"\n")
    report = line.decode("ascii", "replace").split()
    if len(report) != 5 or report[0] != "anneal-effect":
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-300:]
        raise FailedPrecondition(f"{name}: the effect wrapper ended with {done.exit_code} and no report: {said}")
    refusal = {"refused": FailedPrecondition, "fenced": Fenced, "busy": TargetBusy}.get(report[1])
    if refusal is not None:
        raise refusal(f"{name}: {output.decode('utf-8', 'replace').strip()[:300]}", field="target")
    return report[1], int(report[2]), report[3] == "1", report[4] == "1", output
