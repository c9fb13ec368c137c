"""Carrying out one approved action on a target, once: ledger, markers, action, ledger."""

import asyncio
import contextlib
import logging

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal_contracts.work import Applied, Apply
from anneal_runtime.errors import AnnealError, StaleToken, TargetUnreachable
from anneal_runtime.faults import declare, faultpoint
from anneal_skillkit.bench import Workbench
from anneal_skillkit.effects import (
    EffectInterrupted,
    EffectTakenBack,
    Finished,
    NeverStarted,
    Standing,
    Started,
    read_markers,
    result_of,
    standing,
)
from anneal_skillkit.interfaces import Context, ExecResult, Guard, Permit

log = logging.getLogger(__name__)

BEFORE_INTENT = declare("worker.before_intent")
BEFORE_APPLY = declare("worker.before_apply")
WHILE_APPLYING = declare("worker.while_applying")
AFTER_APPLY = declare("worker.after_apply")
AFTER_READ = declare("worker.after_read")
AFTER_RECORD = declare("worker.after_record")

# The tail of a script's output that goes into the log and into prompts.
_OUTPUT_CHARS = 4000
# What ends sooner is never on record as started: the note would cost more than it tells.
_QUICK_S = 0.05
# An undo whose target is cut off waits for the dead-man timer there; this much before its deadline it gives up.
_LAST_WORDS_S = 8.0
_RETRY_S = 1.0


class Actions:
    """The apply command."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def apply(self, command: Apply) -> Applied:
        """Applies the action unless the target's markers say that it ran.

        Raises StaleToken for an old lease or an old command, Fenced where the target itself refuses.
        """
        try:
            ctx, permit, begun_before = await self._admitted(command)
            if begun_before and (found := await self._found(ctx, command, permit)):
                return found
            await faultpoint(BEFORE_APPLY)
            done = await self._run(ctx, command, permit)
            await faultpoint(AFTER_APPLY)
        except EffectInterrupted as e:
            return await self._cut_off(command, e)
        except EffectTakenBack as e:
            return await self._taken_back(command, e)
        except TargetUnreachable as e:
            return await self._lost(command, e)
        except StaleToken:
            await self._tell_late(command)
            raise
        return await self._finished(command, done)

    async def _admitted(self, command: Apply) -> tuple[Context, Permit, bool]:
        """A session, and the ledger's leave; whether the intent was recorded before."""
        await faultpoint(BEFORE_INTENT)
        try:
            ctx, here = await self._reached(command)
        except TargetUnreachable:
            # Who may not change the target hears of that, and not that it is away.
            await self._bench.checkpoint.BeginEffect(_intent(command))
            raise
        # In this order: whatever happens to the target after the look at it voids the leave.
        begun = await self._bench.checkpoint.BeginEffect(_intent(command))
        return ctx, self._permit(command, here, begun), begun.begun_before

    async def _reached(self, command: Apply) -> tuple[Context, Standing]:
        """A session that answers. An undo is patient: what cut the target off is taken back there by a timer."""
        known = True
        while True:
            try:
                ctx = await self._bench.context(command, known=known)
                return ctx, await standing(ctx.session)
            except TargetUnreachable:
                left = command.deadline - self._bench.clock.now()
                if not known and (not command.undoes or left < _LAST_WORDS_S + _RETRY_S):
                    raise
                await self._forget(command)
            if not known:
                await asyncio.sleep(_RETRY_S)
            known = False

    async def _forget(self, command: Apply) -> None:
        """Its address may be another, or the session dead without anybody having noticed."""
        with contextlib.suppress(AnnealError):
            await self._bench.drop_session(command.target)

    def _permit(self, command: Apply, here: Standing, begun: cp.BeginEffectResponse) -> Permit:
        """What the ledger allows, as the target checks it: by its own clock, and only during this boot."""
        left_s = min(begun.lease_left.ToMilliseconds() / 1000, command.deadline - self._bench.clock.now())
        guard = None
        if command.guard_s and command.action.undo:
            undo, after_s = command.action.undo.encode(), round(command.guard_s)
            guard = Guard(undo=undo, after_s=after_s, required=command.action.risks_reach)
        return Permit(
            key=command.effect_key,
            ledger=begun.ledger,
            token=command.fencing_token,
            command_seq=command.command_seq,
            boot=here.boot,
            until=here.uptime + max(0, int(left_s * 100)),
            undoes=command.undoes,
            guard=guard,
        )

    async def _found(self, ctx: Context, command: Apply, permit: Permit) -> Applied | None:
        """What an earlier, killed worker left behind; None: nothing was started. Waits for what is still at work."""
        markers = await read_markers(ctx.session, command.effect_key)
        await faultpoint(AFTER_READ)
        if isinstance(markers, NeverStarted):
            return None
        if isinstance(markers, Started) and markers.running:
            log.info("effect is still running: waiting for its end", extra={"effect": command.effect_key})
            return await self._finished(command, await self._run(ctx, command, permit))
        done = result_of(markers, command.effect_key)
        log.info("effect was already applied", extra={"effect": command.effect_key})
        return await self._finished(command, done)

    async def _run(self, ctx: Context, command: Apply, permit: Permit) -> ExecResult:
        executor = self._bench.skill(command.skill).runtime.executor
        work = asyncio.ensure_future(executor.apply(ctx, command.action, permit))
        try:
            await asyncio.wait({work}, timeout=_QUICK_S)
            if not work.done():
                await self._at_work(command)
                await faultpoint(WHILE_APPLYING)
            return await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _at_work(self, command: Apply) -> None:
        """A note for whoever looks; nothing is decided by it."""
        try:
            await self._bench.checkpoint.StartEffect(cp.StartEffectRequest(idempotency_key=command.effect_key))
        except AnnealError as e:
            log.info("effect not noted as started", extra={"effect": command.effect_key, "reason": e.reason})

    async def _cut_off(self, command: Apply, e: EffectInterrupted) -> Applied:
        """It began and did not end. A target that can be restored is; else its undo script runs, whatever is there."""
        if not command.undoes:
            await self._at_work(command)
            return Applied(command_id=command.command_id, state="interrupted", detail=e.message)
        detail = f"{_unknown(command)}: the script that takes it back was cut off"
        await self._finish(command, "unknown", detail=detail)
        return Applied(command_id=command.command_id, state="interrupted", detail=detail)

    async def _taken_back(self, command: Apply, e: EffectTakenBack) -> Applied:
        """The dead-man timer on the target was there first. The undo that follows finds that, and runs nothing."""
        if not e.whole:
            return Applied(command_id=command.command_id, state="interrupted", detail=e.message)
        await self._finish(command, "reverted", detail="by the dead-man timer on the target")
        return Applied(command_id=command.command_id, state="unreachable", detail=e.message)

    async def _lost(self, command: Apply, e: TargetUnreachable) -> Applied:
        """A target that can be restored is restored; one that cannot is tried again first."""
        if command.undoes:
            raise TargetUnreachable(f"{_unknown(command)}: {e.message}") from e
        if not (await self._bench.access(command.target)).can_snapshot:
            raise e
        await self._forget(command)
        return Applied(command_id=command.command_id, state="unreachable", detail=str(e))

    async def _finished(self, command: Apply, done: ExecResult) -> Applied:
        recording = self._finish(command, "applied", exit_code=done.exit_code)
        if command.undoes or done.timed_out:
            await recording
        else:
            # What follows is a look at the target, which takes longer; a restore would have to know.
            self._bench.beside(command, recording)
        failed = f"{_unknown(command)}: the script that takes it back ended with {done.exit_code}"
        return Applied(
            command_id=command.command_id,
            state="applied",
            exit_code=done.exit_code,
            timed_out=done.timed_out,
            output=_tail(done),
            detail=failed if command.undoes and done.exit_code else "",
        )

    async def _tell_late(self, command: Apply) -> None:
        """Left by a worker that died between its result and the ledger: the run went on, the ledger has no end."""
        with contextlib.suppress(AnnealError):
            ctx = await self._bench.context(command, known=True)
            markers = await read_markers(ctx.session, command.effect_key)
            if isinstance(markers, Finished):
                await self._finish(command, "applied", exit_code=markers.exit_code)

    async def _finish(self, command: Apply, state: str, *, exit_code: int = 0, detail: str = "") -> None:
        await self._bench.checkpoint.FinishEffect(
            cp.FinishEffectRequest(idempotency_key=command.effect_key, state=state, exit_code=exit_code, detail=detail)
        )
        await faultpoint(AFTER_RECORD)


def _intent(command: Apply) -> cp.BeginEffectRequest:
    return cp.BeginEffectRequest(
        idempotency_key=command.effect_key,
        target=command.target,
        effect=cp.Effect(
            key=command.effect_key,
            run_id=command.run_id,
            item_id=command.item_id,
            attempt=command.attempt,
            action_hash=command.action.hash,
            fencing_token=command.fencing_token,
            command_seq=command.command_seq,
            undoes=command.undoes,
        ),
    )


def _unknown(command: Apply) -> str:
    """The beginning of a reason to stop, with the name under which ledger and target know the effect."""
    return f"effect {command.undoes[:12]} of {command.item_id} is unknown"


def _tail(done: ExecResult) -> str:
    text = (done.stdout + (b"\n" if done.stdout and done.stderr else b"") + done.stderr).decode(errors="replace")
    return text if len(text) <= _OUTPUT_CHARS else "[cut] ..." + text[-_OUTPUT_CHARS:]
