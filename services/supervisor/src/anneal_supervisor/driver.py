"""Drives one run: folds its log, appends what the engine decides, sends commands, takes results in."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from anneal_core import chain
from anneal_core import events as ev
from anneal_core.commands import DIRECT_KINDS
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import Pending, RunState
from anneal_runtime import rpc
from anneal_runtime.clock import Clock
from anneal_runtime.errors import AnnealError
from anneal_runtime.faults import declare, faultpoint

from anneal_supervisor.dispatch import Dispatcher
from anneal_supervisor.history import stored_state
from anneal_supervisor.news import announcement
from anneal_supervisor.spans import place_of, tell
from anneal_supervisor.store import Left, Outgoing, Store
from anneal_supervisor.view import run_message

log = logging.getLogger(__name__)

BEFORE_COMMIT = declare("supervisor.before_commit")
AFTER_COMMIT = declare("supervisor.after_commit")
AFTER_CALL = declare("supervisor.after_call")
AFTER_RESEND = declare("supervisor.after_resend")

# Decisions that are committed together at the most: a run of thousands must not hold up the others.
_MAX_DECISIONS = 20
# The longest sleep without looking at the clock again.
_MAX_WAIT_S = 5.0
# A database that is being started again is back within these waits.
_SUBMIT_WAITS_S = (0.1, 0.3, 0.5, 1.0, 2.0, 3.0)


class _Batch:
    """Events that will be committed together, and the state after them."""

    def __init__(self, run_id: str, state: RunState, at: float) -> None:
        self.state = state
        self.at = at
        self.events: list[chain.Event] = []
        self._run_id = run_id

    def add(self, payload: ev.Payload, actor: str) -> None:
        """One event more. Raises IllegalEvent where it does not fit."""
        event = chain.link(
            run_id=self._run_id,
            seq=self.state.seq + 1,
            at=self.at,
            type=payload.type,
            actor=actor,
            payload=payload.model_dump(mode="json"),
            prev_hash=self.state.head or chain.GENESIS,
        )
        self.state = evolve(self.state, event, payload)
        self.events.append(event)

    def issued(self, before: RunState) -> list[Pending]:
        """Commands that were given out since that state."""
        return [p for i, p in self.state.pending.items() if i not in before.pending]


class RunDriver:
    """One run in the hands of this replica. published: gets what each commit left in the outbox."""

    def __init__(
        self,
        *,
        run_id: str,
        token: int,
        store: Store,
        dispatcher: Dispatcher,
        clock: Clock,
        published: Callable[[str, Sequence[Left]], None],
    ) -> None:
        self.run_id = run_id
        self.state = RunState()
        self._token = token
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._published = published
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._direct: dict[str, asyncio.Task[None]] = {}
        self._broken: AnnealError | None = None

    async def run(self) -> None:
        """Drives the run to its end. Raises StaleToken when another replica has taken it over."""
        async with self._lock:  # a result that comes meanwhile waits: it belongs to the state that is being read
            await self._resume()
        try:
            while not self.state.ended:
                self._wake.clear()
                if self._broken is not None:
                    raise self._broken
                async with self._lock:
                    moved = await self._advance()
                if not moved:
                    await self._wait()
        finally:
            tasks = list(self._direct.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _resume(self) -> None:
        """Folds the log and sends again what has no result: the doers are idempotent by command id."""
        self.state = await stored_state(self._store, self.run_id)
        outgoing = [await self._dispatch(self.state, p) for p in self.state.pending.values()]
        again = [o for o in outgoing if o is not None]
        if again:
            # Not through the log: nothing new happened. The message id lets the bus drop what is still there.
            left = await self._store.put_outgoing(again)
            await faultpoint(AFTER_RESEND)
            self._published(self.run_id, left)

    async def _wait(self) -> None:
        deadlines = [p.deadline for p in self.state.pending.values()]
        left = min(deadlines, default=self._clock.now() + _MAX_WAIT_S) - self._clock.now()
        try:
            async with asyncio.timeout(min(max(left, 0.01), _MAX_WAIT_S)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def submit(self, payload: ev.Payload, *, actor: str) -> bool:
        """Appends an event from outside (a result, a cancellation). False: it does not fit and changed nothing."""
        async with self._lock:
            if self.state.ended:
                return False
            try:
                await self._advance(payload, actor=actor)
            except IllegalEvent as e:
                log.info("event refused", extra={"run_id": self.run_id, "type": payload.type, "why": str(e)})
                command_id = getattr(payload, "command_id", "")
                refused = ev.EventRefused(refused=payload.type, why=str(e)[:500], command_id=command_id)
                await self._advance(refused, actor=actor)
                return False
        self._wake.set()
        return True

    async def _advance(self, payload: ev.Payload | None = None, *, actor: str = "") -> bool:
        """Takes an event in and decides on, as far as it goes: one commit. False: there was nothing to do."""
        at = self._clock.now()
        batch = self._batch(payload, actor, at)
        try:
            for _ in range(_MAX_DECISIONS):
                payloads = decide(batch.state, at)
                for decided in payloads:
                    batch.add(decided, "engine")
                if not payloads:
                    break
            work = await self._work(batch)
        except Exception:
            if payload is None:
                raise
            # What came from outside is not lost with what follows from it: run() meets the error again.
            log.warning("taken in, but it leads to an error", extra={"run_id": self.run_id, "type": payload.type})
            batch, work = self._batch(payload, actor, at), []
        if not batch.events:
            return False
        await self._commit(batch, work)
        return True

    def _batch(self, payload: ev.Payload | None, actor: str, at: float) -> _Batch:
        batch = _Batch(self.run_id, self.state, at)
        if payload is not None:
            batch.add(payload, actor)
        return batch

    async def _work(self, batch: _Batch) -> list[Outgoing]:
        issued = batch.issued(self.state)
        return [await self._dispatcher.message(batch.state, p) for p in issued if p.kind not in DIRECT_KINDS]

    async def _commit(self, batch: _Batch, work: Sequence[Outgoing]) -> None:
        """Commits, and only then sends: what is not committed has not happened."""
        state, before = batch.state, self.state
        moved = state.shown != before.shown
        summary = run_message(state, batch.at, items=False).SerializeToString() if moved else None
        outgoing = [*work, announcement(self.run_id, batch.events[0].seq, state.seq)]
        await faultpoint(BEFORE_COMMIT)
        left = await self._store.append(batch.events, outgoing, token=self._token, summary=summary, ended=state.ended)
        await faultpoint(AFTER_COMMIT)
        self.state = state
        self._published(self.run_id, left)
        tell(state, batch.events)
        for pending in batch.issued(before):
            if pending.kind in DIRECT_KINDS:
                self._start_direct(state, pending)

    async def _dispatch(self, state: RunState, pending: Pending) -> Outgoing | None:
        if pending.kind in DIRECT_KINDS:
            self._start_direct(state, pending)
            return None
        return await self._dispatcher.message(state, pending)

    def _start_direct(self, state: RunState, pending: Pending) -> None:
        async def carry_out() -> None:
            # Begun where a result was handed in, and not on behalf of who did that.
            rpc.serves_nobody()
            with place_of(self.run_id, pending).doing(f"anneal.{pending.kind}"):
                result = await self._dispatcher.direct(state, pending)
            await faultpoint(AFTER_CALL)
            self._direct.pop(pending.command_id, None)
            await self._hand_in(ev.CommandFinished(command_id=pending.command_id, result=result))

        self._direct[pending.command_id] = asyncio.create_task(carry_out())

    async def _hand_in(self, finished: ev.CommandFinished) -> None:
        """Submits the result of a direct call; where it cannot be stored, the run is given back and taken up anew."""
        for wait in (*_SUBMIT_WAITS_S, None):
            try:
                await self.submit(finished, actor="supervisor")
                return
            except AnnealError as e:
                if not e.retryable or wait is None:
                    self._broken = e
                    self._wake.set()
                    return
                await asyncio.sleep(wait)

    async def keep_target(self) -> None:
        """Renews the lease of the target, once the run has it."""
        if self.state.access is None or self.state.released or self.state.ended:
            return
        key = f"{self.run_id}/renew/{self._clock.now():.3f}"
        try:
            await self._dispatcher.renew_target(self.state, key)
        except AnnealError as e:
            log.warning("target lease not renewed", extra={"run_id": self.run_id, "reason": e.reason})
