"""What waits for doers, and what they gave up: kept with its reason, told to its run, sent again or dropped."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from anneal_contracts.canonical import digest
from anneal_contracts.work import Failed, Result, WorkClass, command_of, sent_again
from anneal_core.state import RunState
from anneal_runtime.bus import WORK, Bus, QueueFigures
from anneal_runtime.errors import AnnealError, FailedPrecondition, InvalidArgument, NotFound
from anneal_runtime.faults import declare, faultpoint

from anneal_supervisor.store import Outgoing
from anneal_supervisor.store_parked import GivenUp, Parked, ParkedStore

log = logging.getLogger(__name__)

AFTER_PARKED = declare("supervisor.after_parked")
AFTER_SETTLED = declare("supervisor.after_settled")


class Runs(Protocol):
    """What the queues need of the runs."""

    async def report(self, run_id: str, command_id: str, result: Result) -> bool: ...

    async def state(self, run_id: str) -> RunState: ...


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Figures by class of work; problem: why they are missing, in words."""

    figures: Mapping[WorkClass, QueueFigures]
    counts: Mapping[str, int]
    parked: Sequence[Parked]
    problem: str = ""


class Queues:
    """Plain logic behind the RPCs. wake: called when the outbox has something to send."""

    def __init__(self, *, store: ParkedStore, runs: Runs, bus: Bus, wake: Callable[[], None]) -> None:
        self._store = store
        self._runs = runs
        self._bus = bus
        self._wake = wake

    async def overview(self, limit: int) -> Overview:
        """All there is to see. What is parked is told also where the message server does not answer."""
        counts, newest = await self._store.counts(), await self._store.newest(limit)
        try:
            found = await asyncio.gather(
                *(self._bus.queue(stream=WORK.name, durable=c.value, subject=c.subjects) for c in WorkClass)
            )
        except AnnealError as e:
            return Overview(figures={}, counts=counts, parked=newest, problem=e.message)
        return Overview(figures=dict(zip(WorkClass, found, strict=True)), counts=counts, parked=newest)

    async def park(self, identity: str, given: GivenUp, data: bytes) -> tuple[str, bool]:
        """Keeps a message that a doer gave up; returns its id and whether a run waited for it and was told.

        May be repeated. Raises Unavailable while the run is being taken over: then the doer calls again.
        """
        found = next((c for c in WorkClass if given.subject.startswith(c.subjects[:-1])), None)
        if found is None:
            raise InvalidArgument(f"{given.subject!r} is of no class of work", field="subject")
        if not identity:
            raise InvalidArgument("is required", field="idempotency_key")
        run_id, command_id = command_of(given.msg_id)
        parked_id = f"pk-{digest(given.subject, identity)[:12]}"
        message = Parked(
            **vars(given), id=parked_id, work_class=found.value, run_id=run_id, command_id=command_id, size=len(data)
        )
        kept = await self._store.park(message, data)
        await faultpoint(AFTER_PARKED)
        told = kept.state == "parked" and bool(run_id) and await self._tell(kept)
        log.warning("message parked", extra={"parked": kept.id, "run_id": run_id, "reason": kept.reason, "told": told})
        return kept.id, told

    async def _tell(self, kept: Parked) -> bool:
        """The run hears at once that its command will not be carried out, rather than wait for its deadline."""
        message = f"{kept.detail}; given up after {kept.deliveries} deliveries, see: anneal queue show {kept.id}"
        failed = Failed(command_id=kept.command_id, reason=kept.reason, message=message, retryable=False)
        try:
            return await self._runs.report(kept.run_id, kept.command_id, failed)
        except NotFound:
            return False

    async def look(self, parked_id: str) -> tuple[Parked, bytes, str]:
        """A parked message, its content, and why it may not be sent again; empty: it may. Raises NotFound."""
        found, data = await self._store.get(parked_id)
        return found, data, await self._why_not(found)

    async def _why_not(self, found: Parked) -> str:
        if found.state != "parked":
            return f"{found.id} is {found.state} already"
        if not found.run_id:
            return ""
        try:
            state = await self._runs.state(found.run_id)
        except NotFound:
            return f"its run {found.run_id} does not exist here"
        if state.ended:
            return f"its run {found.run_id} is {state.phase.value}: nobody waits for the result"
        if found.command_id not in state.pending:
            return f"run {found.run_id} no longer waits for this command: it was told of the failure and went on"
        return ""

    async def retry(self, key: str, parked_id: str) -> Parked:
        """Sends a parked message again. Raises NotFound, and FailedPrecondition where nobody would wait for it."""
        found, data, why_not = await self.look(parked_id)
        if why_not and found.state == "parked":
            raise FailedPrecondition(why_not, field="id", details={"hint": f"anneal queue drop {found.id}"})
        # Another id: the bus drops a message whose id it has seen a moment ago.
        again = Outgoing(
            subject=found.subject, msg_id=sent_again(found.msg_id or found.id, digest(key)[:12]), data=data
        )
        settled = await self._store.settle(key, parked_id, "retried", [again])
        await faultpoint(AFTER_SETTLED)
        self._wake()
        return settled

    async def drop(self, key: str, parked_id: str) -> Parked:
        """Takes a parked message off the list. Raises NotFound, and FailedPrecondition where it is off already."""
        settled = await self._store.settle(key, parked_id, "dropped")
        await faultpoint(AFTER_SETTLED)
        return settled
