"""From issued commands to what happens: messages for the workers, and the supervisor's own calls to other services."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.memory.v1 import memory_pb2 as mem
from anneal_contracts.canonical import canonical_json
from anneal_contracts.facts import Action, CoreMode, TargetAccess
from anneal_contracts.work import (
    SUBJECT_BY_KIND,
    Acquired,
    Candidate,
    Failed,
    Recorded,
    Released,
    Restored,
    Result,
    Snapshotted,
    command_msg_id,
)
from anneal_core import commands
from anneal_core.attempts import candidate_of
from anneal_core.events import Ending
from anneal_core.gate import conflicts
from anneal_core.state import Attempt, Pending, RunState
from anneal_core.triage import Response
from anneal_runtime.errors import AnnealError, Internal
from google.protobuf.duration_pb2 import Duration

from anneal_supervisor.learnt import lessons, times
from anneal_supervisor.store import Outgoing, Store

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub
    from anneal.memory.v1.memory_pb2_grpc import MemoryServiceAsyncStub

log = logging.getLogger(__name__)

# A peer that is being started again is back within these waits.
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 3.0, 5.0)
# Modes that show the script itself to be wrong on this kind of machine: worth a ban.
_BANNING = frozenset({CoreMode.CLEAN_FAILURE, CoreMode.EVALUATOR_GAP, CoreMode.HEALTH_FAILURE})


class Dispatcher:
    """Builds messages and makes direct calls. lease_s: lease of a target in seconds."""

    def __init__(
        self,
        store: Store,
        checkpoint: "CheckpointServiceAsyncStub",
        memory: "MemoryServiceAsyncStub",
        *,
        lease_s: float,
    ) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._memory = memory
        self._lease_s = lease_s

    async def message(self, state: RunState, pending: Pending) -> Outgoing:
        """The message of a command that a worker or the evaluator carries out."""
        action = await self._action(state, pending) if pending.kind in ("apply", "undo") else None
        command = commands.build(state, pending, action)
        subject = SUBJECT_BY_KIND[command.kind]
        msg_id = command_msg_id(state.run_id, pending.command_id)
        return Outgoing(subject=subject, msg_id=msg_id, data=canonical_json(command))

    async def _action(self, state: RunState, pending: Pending) -> Action:
        candidate = candidate_of(state, pending.item_id)
        undo = await self._text(candidate.undo_blob) if candidate.undo_blob else None
        if pending.kind == "undo":
            return commands.undo_of(candidate, undo or "")
        return commands.action_of(candidate, await self._text(candidate.blob), undo)

    async def _text(self, blob: str) -> str:
        return (await self._store.get_blob(blob))[1].decode()

    async def direct(self, state: RunState, pending: Pending) -> Result:
        """Carries out a command of the supervisor's own; never raises: an error becomes a Failed result."""
        doers: dict[str, Callable[[RunState, Pending], Awaitable[Result]]] = {
            "acquire": self._acquire,
            "snapshot": self._snapshot,
            "restore": self._restore,
            "rewind": self._restore,
            "record": self._record,
            "release": self._release,
        }
        for wait in (*_BACKOFF_S, None):
            try:
                return await doers[pending.kind](state, pending)
            except AnnealError as e:
                if e.retryable and wait is not None:
                    log.info("command is tried again", extra={"kind": pending.kind, "reason": e.reason, "wait_s": wait})
                    await asyncio.sleep(wait)
                    continue
                return failed(pending.command_id, e)
            except Exception:
                log.exception("command failed", extra={"kind": pending.kind, "run_id": state.run_id})
                return failed(pending.command_id, Internal("the supervisor's log has the cause"))
        raise AssertionError("the loop above always returns")

    async def _acquire(self, state: RunState, pending: Pending) -> Result:
        assert state.spec is not None
        answer = await self._checkpoint.AcquireLease(
            cp.AcquireLeaseRequest(
                idempotency_key=pending.command_id,
                target=state.spec.target,
                run_id=state.run_id,
                ttl=self._ttl(),
            )
        )
        t = answer.target
        access = TargetAccess(
            name=t.name,
            driver=t.driver,
            host=t.host,
            port=t.port,
            user=t.user,
            key_path=t.key_path,
            host_key=t.host_key,
            can_snapshot=t.can_snapshot,
            mission_services=tuple(t.mission_services),
        )
        return Acquired(command_id=pending.command_id, fencing_token=answer.fencing_token, access=access)

    async def _snapshot(self, state: RunState, pending: Pending) -> Result:
        answer = await self._checkpoint.Snapshot(
            cp.SnapshotRequest(
                idempotency_key=pending.command_id,
                target=_target(state),
                run_id=state.run_id,
                fencing_token=state.fencing_token,
                generation=pending.generation,
                command_seq=pending.seq,
                first=state.origin is not None and not state.origin.based,
            ),
            timeout=60,
        )
        took = answer.took.ToMilliseconds() / 1000
        return Snapshotted(command_id=pending.command_id, generation=answer.generation, took_s=took)

    async def _restore(self, state: RunState, pending: Pending) -> Result:
        answer = await self._checkpoint.Restore(
            cp.RestoreRequest(
                idempotency_key=pending.command_id,
                target=_target(state),
                run_id=state.run_id,
                fencing_token=state.fencing_token,
                generation=pending.generation,
                command_seq=pending.seq,
                force=pending.force,
                volatile_paths=state.policy.volatile_paths if state.policy else (),
                from_run=state.origin.parent if pending.kind == "rewind" and state.origin else "",
            ),
            timeout=90,
        )
        return Restored(
            command_id=pending.command_id,
            restored=answer.restored,
            changed_paths=tuple(answer.changed_paths[:50]),
            took_s=answer.took.ToMilliseconds() / 1000,
        )

    async def _release(self, state: RunState, pending: Pending) -> Result:
        await self._checkpoint.ReleaseLease(
            cp.ReleaseLeaseRequest(
                idempotency_key=pending.command_id,
                target=_target(state),
                run_id=state.run_id,
                fencing_token=state.fencing_token,
            )
        )
        return Released(command_id=pending.command_id)

    async def renew_target(self, state: RunState, key: str) -> None:
        """Prolongs the lease of the run's target. Raises AnnealError."""
        await self._checkpoint.RenewLease(
            cp.RenewLeaseRequest(
                idempotency_key=key,
                target=_target(state),
                run_id=state.run_id,
                fencing_token=state.fencing_token,
                ttl=self._ttl(),
            )
        )

    def _ttl(self) -> Duration:
        ttl = Duration()
        ttl.FromMilliseconds(int(self._lease_s * 1000))
        return ttl

    async def _record(self, state: RunState, pending: Pending) -> Result:
        assert state.spec is not None
        outcomes = [
            await self._outcome(item_id, attempt)
            for item_id in state.order
            for attempt in state.items[item_id].attempts[state.items[item_id].inherited :]
            if attempt.ending is Ending.KEPT or attempt.mode in _BANNING or attempt.response == Response.BAN
        ]
        answer = await self._memory.Record(
            mem.RecordRequest(
                idempotency_key=pending.command_id,
                run_id=state.run_id,
                skill=state.spec.skill,
                fingerprint=state.fingerprint,
                outcomes=outcomes,
                conflicts=[mem.Conflict(item_id=i, undone_by=others) for i, others in conflicts(state).items()],
                lessons=lessons(state),
                times=times(state),
            )
        )
        return Recorded(command_id=pending.command_id, tips=answer.tips, bans=answer.bans)

    async def _outcome(self, item_id: str, attempt: Attempt) -> mem.Outcome:
        c: Candidate = attempt.candidate
        return mem.Outcome(
            item_id=item_id,
            action_hash=c.hash,
            action_kind=c.kind,
            action_title=c.title,
            content=await self._text(c.blob),
            origin=c.origin or c.source.value,
            worked=attempt.ending is Ending.KEPT,
            mechanism=attempt.detail,
            tip_id=c.tip_id,
        )


def _target(state: RunState) -> str:
    assert state.spec is not None
    return state.spec.target


def failed(command_id: str, error: AnnealError) -> Failed:
    """An error as a command's result; whether to try again comes from its type."""
    return Failed(
        command_id=command_id,
        reason=error.reason,
        message=error.message,
        retryable=error.retryable,
        field=error.field,
    )
