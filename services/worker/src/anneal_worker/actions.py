"""Carrying out one approved action on a target, once: ledger, markers, action, ledger."""

import logging

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal_contracts.work import Applied, Apply
from anneal_runtime.errors import TargetUnreachable
from anneal_runtime.faults import declare, faultpoint
from anneal_skillkit.bench import Workbench
from anneal_skillkit.effects import EffectInterrupted, Finished, Started, read_markers
from anneal_skillkit.interfaces import Context, ExecResult

log = logging.getLogger(__name__)

BEFORE_APPLY = declare("worker.before_apply")
AFTER_APPLY = declare("worker.after_apply")

# The tail of a script's output that goes into the log and into prompts.
_OUTPUT_CHARS = 4000


class Actions:
    """The apply command."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def apply(self, command: Apply) -> Applied:
        """Applies the action unless the target's markers say that it ran. Raises StaleToken for an old lease."""
        begun = await self._begin(command)
        try:
            return await self._carried_out(command, again=begun.begun_before)
        except TargetUnreachable as e:
            if not await self._bench.moved(command):
                return await self._lost(command, e)
        try:
            return await self._carried_out(command, again=True, known=False)
        except TargetUnreachable as e:
            return await self._lost(command, e)

    async def _carried_out(self, command: Apply, *, again: bool, known: bool = True) -> Applied:
        """again: it may have been begun. known: where the target was last found is taken for granted."""
        try:
            ctx = await self._bench.context(command, known=known)
            if again and (found := await self._found(ctx, command)):
                return found
            await faultpoint(BEFORE_APPLY)
            done = await self._run(ctx, command)
            await faultpoint(AFTER_APPLY)
        except EffectInterrupted as e:
            return Applied(command_id=command.command_id, state="interrupted", detail=str(e))
        return await self._finished(command, done)

    async def _begin(self, command: Apply) -> cp.BeginEffectResponse:
        """Has the intent committed. Raises StaleToken."""
        return await self._bench.checkpoint.BeginEffect(
            cp.BeginEffectRequest(
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
        )

    async def _found(self, ctx: Context, command: Apply) -> Applied | None:
        """What an earlier, killed worker left behind; None: nothing was started. Waits for what is still at work."""
        markers = await read_markers(ctx.session, command.effect_key)
        if isinstance(markers, Started) and markers.running:
            log.info("effect is still running: waiting for its end", extra={"effect": command.effect_key})
            return await self._finished(command, await self._run(ctx, command))
        if isinstance(markers, Started):
            return Applied(command_id=command.command_id, state="interrupted", detail="started, end unknown")
        if isinstance(markers, Finished):
            log.info("effect was already applied", extra={"effect": command.effect_key})
            return await self._finished(command, _recovered(markers))
        return None

    async def _run(self, ctx: Context, command: Apply) -> ExecResult:
        executor = self._bench.skill(command.skill).runtime.executor
        return await executor.apply(ctx, command.action, command.effect_key)

    async def _lost(self, command: Apply, e: TargetUnreachable) -> Applied:
        """A target that can be restored is restored; one that cannot is tried again first."""
        if not (await self._bench.access(command.target)).can_snapshot:
            raise e
        await self._bench.drop_session(command.target)
        return Applied(command_id=command.command_id, state="unreachable", detail=str(e))

    async def _finished(self, command: Apply, done: ExecResult) -> Applied:
        await self._bench.checkpoint.FinishEffect(
            cp.FinishEffectRequest(idempotency_key=command.effect_key, state="applied", exit_code=done.exit_code)
        )
        return Applied(
            command_id=command.command_id,
            state="applied",
            exit_code=done.exit_code,
            timed_out=done.timed_out,
            output=_tail(done),
        )


def _recovered(markers: Finished) -> ExecResult:
    """The end of an action whose worker did not live to see it."""
    return ExecResult(
        exit_code=markers.exit_code,
        stdout=markers.output,
        stderr=b"",
        timed_out=markers.timed_out,
        truncated=markers.truncated,
    )


def _tail(done: ExecResult) -> str:
    text = (done.stdout + (b"\n" if done.stdout and done.stderr else b"") + done.stderr).decode(errors="replace")
    return text if len(text) <= _OUTPUT_CHARS else "[cut] ..." + text[-_OUTPUT_CHARS:]
