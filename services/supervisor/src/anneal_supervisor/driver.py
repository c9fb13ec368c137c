"""Drives one run: folds its log, appends what the engine decides, sends commands, takes results in."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from anneal_contracts.canonical import canonical_json
from anneal_contracts.work import event_subject
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.commands import DIRECT_KINDS
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import Pending, RunState
from anneal_runtime.clock import Clock
from anneal_runtime.errors import AnnealError
from anneal_runtime.faults import declare, faultpoint

from anneal_supervisor.dispatch import Dispatcher
from anneal_supervisor.history import stored_state
from anneal_supervisor.store import Outgoing, Store
from anneal_supervisor.view import run_message

log = logging.getLogger(__name__)

BEFORE_COMMIT = declare("supervisor.before_commit")
AFTER_COMMIT = declare("supervisor.after_commit")

# The longest sleep without looking at the clock again.
_MAX_WAIT_S = 5.0
# A database that is being started again is back within these waits.
_SUBMIT_WAITS_S = (0.1, 0.3, 0.5, 1.0, 2.0, 3.0)


class RunDriver:
    """One run in the hands of this replica. published: called after each commit, so that messages leave."""

    def __init__(
        self,
        *,
        run_id: str,
        token: int,
        store: Store,
        dispatcher: Dispatcher,
        clock: Clock,
        published: Callable[[str], None],
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
                    payloads = decide(self.state, self._clock.now())
                    if payloads:
                        await self._append(payloads, actor="engine")
                if not payloads:
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
            await self._store.put_outgoing(again)
            self._published(self.run_id)

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
                await self._append((payload,), actor=actor)
            except IllegalEvent as e:
                log.info("event refused", extra={"run_id": self.run_id, "type": payload.type, "why": str(e)})
                command_id = getattr(payload, "command_id", "")
                refused = ev.EventRefused(refused=payload.type, why=str(e)[:500], command_id=command_id)
                await self._append((refused,), actor=actor)
                return False
        self._wake.set()
        return True

    async def _append(self, payloads: Sequence[ev.Payload], *, actor: str) -> None:
        """Evolves, commits, and only then sends: what is not committed has not happened."""
        state, events, outgoing = self.state, [], []
        at = self._clock.now()
        for payload in payloads:
            event = chain.link(
                run_id=self.run_id,
                seq=state.seq + 1,
                at=at,
                type=payload.type,
                actor=actor,
                payload=payload.model_dump(mode="json"),
                prev_hash=state.head or chain.GENESIS,
            )
            state = evolve(state, event)
            events.append(event)
            outgoing.append(_announcement(event))
        issued = [p for i, p in state.pending.items() if i not in self.state.pending]
        work = [await self._dispatcher.message(state, p) for p in issued if p.kind not in DIRECT_KINDS]
        moved = state.phase is not self.state.phase
        summary = run_message(state, at, items=False).SerializeToString() if moved else None
        await faultpoint(BEFORE_COMMIT)
        await self._store.append(events, [*outgoing, *work], token=self._token, summary=summary, ended=state.ended)
        await faultpoint(AFTER_COMMIT)
        self.state = state
        self._published(self.run_id)
        for pending in issued:
            if pending.kind in DIRECT_KINDS:
                self._start_direct(state, pending)

    async def _dispatch(self, state: RunState, pending: Pending) -> Outgoing | None:
        if pending.kind in DIRECT_KINDS:
            self._start_direct(state, pending)
            return None
        return await self._dispatcher.message(state, pending)

    def _start_direct(self, state: RunState, pending: Pending) -> None:
        async def carry_out() -> None:
            result = await self._dispatcher.direct(state, pending)
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


def _announcement(event: chain.Event) -> Outgoing:
    """Tells that an event exists; its payload stays in Postgres, which is the truth."""
    body = canonical_json({"run_id": event.run_id, "seq": event.seq, "type": event.type})
    return Outgoing(subject=event_subject(event.run_id), msg_id=f"{event.run_id}/{event.seq}", data=body)
