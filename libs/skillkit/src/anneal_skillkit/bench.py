"""The workbench of a process that carries out commands: skills, sessions, blobs, and the loop around a command.

Workers and evaluators share it. It owns how a command is taken in and its result handed back; what is done is theirs.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc.aio
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal.supervisor.v1 import queues_pb2 as qu
from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal.supervisor.v1.queues_pb2_grpc import QueueServiceStub
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_contracts.canonical import canonical_json, sha256_hex
from anneal_contracts.facts import TargetAccess
from anneal_contracts.work import Apply, Command, Evaluate, Failed, Propose, Reflect, Result
from anneal_runtime.bus import Message
from anneal_runtime.clock import Clock
from anneal_runtime.errors import AnnealError, DeadlineExceeded, TargetUnreachable, Unreadable
from anneal_runtime.faults import declare, faultpoint
from anneal_runtime.redelivery import crashed
from anneal_runtime.story import Place
from pydantic import TypeAdapter, ValidationError

from anneal_skillkit.interfaces import Context, Sessions, TargetSession
from anneal_skillkit.loader import Skill, SkillSet
from anneal_skillkit.ssh import SessionPool
from anneal_skillkit.thrift import give_back

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub
    from anneal.supervisor.v1.queues_pb2_grpc import QueueServiceAsyncStub
    from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceAsyncStub

log = logging.getLogger(__name__)

_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
# Commands that hold a scan's results, or every item's texts and scripts, while they last.
_LARGE: Final = frozenset({"discover", "plan", "verify"})
# How often a result is handed in again while the supervisor is being started anew; the last one repeats.
_REPORT_WAITS_S = (0.1, 0.3, 0.5, 1.0)
# A result is taken in within milliseconds; a supervisor that stands still must not hold it for as long as it sleeps.
_REPORT_TIMEOUT_S = 5.0
# For so long a message that is given up is offered to a supervisor that is away, before the bus keeps it for a minute.
_PARK_FOR_S = 20.0
# Blobs are immutable; the tailoring file of a run is asked for with every command.
_CACHED_BLOBS = 32

Handler = Callable[[Any], Awaitable[Result]]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Points:
    """Names of the fault points around a command: only the bus knows of it, it is done, the bus does not know yet."""

    taken_in: str = ""
    before_report: str = ""
    after_report: str = ""


def points(service: str) -> Points:
    """Declares the fault points of a service that carries out commands."""
    return Points(
        taken_in=declare(f"{service}.taken_in"),
        before_report=declare(f"{service}.before_report"),
        after_report=declare(f"{service}.after_report"),
    )


_NO_POINTS = Points()


class Workbench:
    """What a command's handler works with. sessions: how targets are reached; SSH where none is given."""

    def __init__(
        self,
        *,
        skills: SkillSet,
        cache: Path,
        supervisor: grpc.aio.Channel,
        checkpoint: grpc.aio.Channel,
        clock: Clock,
        points: Points = _NO_POINTS,
        sessions: Sessions | None = None,
    ) -> None:
        self.skills = skills
        self.clock = clock
        self.under_way: dict[str, str] = {}
        self.done = 0
        self.supervisor: SupervisorServiceAsyncStub = SupervisorServiceStub(supervisor)
        self._queues: QueueServiceAsyncStub = QueueServiceStub(supervisor)
        self.checkpoint: CheckpointServiceAsyncStub = CheckpointServiceStub(checkpoint)
        self._cache = cache
        self._points = points
        self._sessions: Sessions = sessions or SessionPool()
        self._blobs: dict[str, bytes] = {}
        self._beside: dict[str, list[asyncio.Task[None]]] = {}
        # Target -> the run and token under which it was last reached, and how.
        self._reached: dict[str, tuple[tuple[str, int], TargetAccess]] = {}

    async def close(self) -> None:
        """Closes the sessions to all targets."""
        await self._sessions.close()

    # --- what handlers need -----------------------------------------------------------------------------------------

    def skill(self, name: str) -> Skill:
        """The loaded skill. Raises NotFound or the error that keeps it from loading."""
        return self.skills.get(name)

    async def access(self, target: str) -> TargetAccess:
        """How the target is reached now: after a restore its address may be another. Raises NotFound."""
        t = (await self.checkpoint.GetTarget(cp.GetTargetRequest(name=target))).target
        return TargetAccess(
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

    async def context(self, command: Any, *, known: bool = False) -> Context:
        """The context of a command against its target. Raises TargetUnreachable, HostKeyChanged, NotFound.

        known: a target that was reached before under this lease is taken to be where it was. Who then finds it
        unreachable asks moved() before it believes so.
        """
        holder = (command.run_id, command.fencing_token)
        held_by, access = self._reached.get(command.target, (None, None))
        if access is None or held_by != holder or not known:
            access = await self.access(command.target)
            self._reached[command.target] = (holder, access)
        session = await self._sessions.get(access)
        services = tuple(dict.fromkeys((*access.mission_services, *getattr(command, "mission_services", ()))))
        return Context(
            run_id=command.run_id,
            profile=command.profile or self.skill(command.skill).manifest.default_profile,
            tailoring=await self.blob(command.tailoring_blob) if command.tailoring_blob else b"",
            session=session,
            cache=self._cache,
            mission_services=services,
        )

    async def moved(self, command: Any) -> bool:
        """Is the target elsewhere than this process last knew?"""
        _, access = self._reached.pop(command.target, (None, None))
        try:
            return access is not None and access != await self.access(command.target)
        except AnnealError as e:
            log.debug("target not found again", extra={"reason": e.reason})
            return False

    async def fresh_session(self, target: str) -> TargetSession:
        """A new session beside the pooled one: the canary. Raises TargetUnreachable and the like."""
        access = await self.access(target)
        return await (await self._sessions.get(access)).fresh()

    async def drop_session(self, target: str) -> None:
        """Forgets a pooled session that no longer answers."""
        await self._sessions.drop(await self.access(target))

    async def blob(self, sha256: str) -> bytes:
        """Content of a blob. Raises NotFound."""
        if sha256 not in self._blobs:
            answer = await self.supervisor.GetBlob(sup.GetBlobRequest(sha256=sha256))
            if len(self._blobs) >= _CACHED_BLOBS:
                self._blobs.pop(next(iter(self._blobs)))
            self._blobs[sha256] = answer.content
        return self._blobs[sha256]

    async def put_blob(self, content: bytes, media_type: str) -> str:
        """Stores content and returns its name."""
        sha = sha256_hex(content)
        request = sup.PutBlobRequest(idempotency_key=sha, media_type=media_type, content=content)
        return (await self.supervisor.PutBlob(request)).sha256

    def beside(self, command: Any, work: Coroutine[Any, Any, None]) -> None:
        """Work that goes on while the command's result is handed in."""
        self._beside.setdefault(command.command_id, []).append(asyncio.create_task(work))

    async def settled(self, command: Any) -> None:
        """Waits for what goes on beside a command. Raises what it raised."""
        await asyncio.gather(*self._beside.pop(command.command_id, ()))

    # --- the loop around a command ----------------------------------------------------------------------------------

    async def handle(self, message: Message, handlers: Mapping[str, Handler]) -> None:
        """Carries one message's command out and reports. Raises what another delivery may mend, in time."""
        try:
            command = _COMMAND.validate_json(message.data)
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Unreadable(f"not a command of this version: {first['msg']} at {where or 'its beginning'}") from e
        late = self.clock.now() - command.deadline
        if late > 0:
            log.info("command dropped: nobody waits any more", extra={"kind": command.kind, "late_s": round(late, 1)})
            return
        self.under_way[command.command_id] = command.kind
        started = time.monotonic()
        try:
            await faultpoint(self._points.taken_in)
            with _place_of(command).doing(f"anneal.{command.kind}"):
                result = await self._carry_out(command, handlers, message)
            result = result.model_copy(update={"took_s": round(time.monotonic() - started, 6)})
            await faultpoint(self._points.before_report)
            # Both to their end, whatever becomes of the other: the message is acknowledged after that.
            for error in await asyncio.gather(
                self._report(command, result), self.settled(command), return_exceptions=True
            ):
                if error is not None:
                    raise error
            await faultpoint(self._points.after_report)
            self.done += 1
        except AnnealError as e:
            if e.retryable:
                raise
            # The supervisor refuses the result, and would refuse the next one.
            await self.park(message, e)
        except Exception as e:
            if self._comes_again(message.poison_retry_in_s, command):
                raise
            # The run is to know now, and not when its deadline has passed.
            log.exception("command failed", extra={"kind": command.kind, "run_id": command.run_id})
            await self.park(message, crashed(e))
        finally:
            self.under_way.pop(command.command_id, None)
            if command.kind in _LARGE:
                give_back()

    async def _carry_out(self, command: Any, handlers: Mapping[str, Handler], message: Message) -> Result:
        """The result, or the failure as one where no delivery is left that could do better."""
        try:
            async with asyncio.timeout(max(0.1, command.deadline - self.clock.now())):
                return await handlers[command.kind](command)
        except TimeoutError:
            error: AnnealError = DeadlineExceeded(f"{command.kind} did not end in its time")
        except TargetUnreachable as e:
            error = e
            await self._forget(command.target)
        except AnnealError as e:
            error = e
        if error.retryable and self._comes_again(message.retry_in_s, command):
            raise error
        return Failed(
            command_id=command.command_id,
            reason=error.reason,
            message=error.message,
            # Where all deliveries were used, giving the command out again would only repeat them.
            retryable=error.retryable and message.retry_in_s is not None,
            field=error.field,
        )

    def _comes_again(self, wait_s: float | None, command: Any) -> bool:
        """Whether a message that is failed now comes again while its result is still waited for."""
        return wait_s is not None and self.clock.now() + wait_s < command.deadline

    async def park(self, message: Message, error: AnnealError) -> None:
        """Gives a message up: the supervisor keeps it with its reason and tells the run. Raises Unavailable."""
        request = qu.ParkMessageRequest(
            idempotency_key=message.msg_id or sha256_hex(message.data),
            subject=message.subject,
            msg_id=message.msg_id,
            data=message.data,
            deliveries=message.deliveries,
            reason=error.reason,
            detail=error.message,
            doer=f"{socket.gethostname()}/{os.getpid()}",
        )
        await self._until(self.clock.now() + _PARK_FOR_S, lambda: self._queues.ParkMessage(request))

    async def _forget(self, target: str) -> None:
        try:
            await self.drop_session(target)
        except AnnealError as e:
            log.debug("session not dropped", extra={"reason": e.reason})

    async def _report(self, command: Any, result: Result) -> None:
        """Hands the result in; a supervisor that is away is waited for as long as it waits itself."""
        run_id = command.run_id
        body = sup.ReportResultRequest(
            idempotency_key=result.command_id, run_id=run_id, result_json=canonical_json(result)
        )
        try:
            answer = await self._until(
                command.deadline, lambda: self.supervisor.ReportResult(body, timeout=_REPORT_TIMEOUT_S)
            )
        except AnnealError as e:
            if not e.retryable:
                raise
            log.warning("result dropped: nobody took it in time", extra={"run_id": run_id, "kind": result.kind})
            return
        if not answer.accepted:
            log.info("result came too late", extra={"run_id": run_id, "kind": result.kind})

    async def _until(self, until: float, call: Callable[[], Awaitable[T]]) -> T:
        """What a call gives that is made again while the other side is away. Raises its last error."""
        for wait in chain(_REPORT_WAITS_S, repeat(_REPORT_WAITS_S[-1])):
            try:
                return await call()
            except AnnealError as e:
                if not e.retryable or self.clock.now() + wait > until:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("the loop above always returns or raises")


def _place_of(command: Command) -> Place:
    """Where a command stands in the run's story. A model's turn leads to an attempt, or to none: it is the item's."""
    item_id = command.item.id if isinstance(command, Propose | Reflect) else getattr(command, "item_id", "")
    attempt = command.attempt if isinstance(command, Apply | Evaluate) else 0
    return Place(run_id=command.run_id, item_id=item_id, attempt=attempt)
