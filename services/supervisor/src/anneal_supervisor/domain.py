"""The supervisor: which runs this replica drives, what may be asked of them, and what is told of them."""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from anneal_contracts.canonical import sha256_hex
from anneal_contracts.facts import DeferredItemOutcome, SkillPolicy
from anneal_contracts.work import Result
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.evolve import evolve
from anneal_core.finish import settled_in
from anneal_core.state import RunState
from anneal_runtime.clock import Clock
from anneal_runtime.errors import AnnealError, DataLoss, FailedPrecondition, InvalidArgument, StaleToken, Unavailable
from anneal_runtime.faults import declare, faultpoint

from anneal_supervisor.dispatch import Dispatcher
from anneal_supervisor.driver import RunDriver
from anneal_supervisor.history import is_of_its_parent, stored_state
from anneal_supervisor.hub import Hub
from anneal_supervisor.store import Replica, Store
from anneal_supervisor.view import run_message

log = logging.getLogger(__name__)

AFTER_CREATE = declare("supervisor.after_create")
AFTER_CLAIM = declare("supervisor.after_claim")
AFTER_BLOB = declare("supervisor.after_blob")

# A lease that ends elsewhere is looked for so long after its end: not in vain, and not without a pause.
_CLAIM_MARGIN_S = 0.2
_CACHED_STATES = 8
_PAGE = 500
_MAX_BLOB = 48 << 20


def new_run_id() -> str:
    """An id that no run has."""
    return f"run-{uuid.uuid4().hex[:12]}"


class Supervisor:
    """Plain logic behind the RPCs; knows no gRPC service of its own."""

    def __init__(
        self,
        *,
        store: Store,
        dispatcher: Dispatcher,
        clock: Clock,
        hub: Hub,
        max_runs: int,
        lease_s: float,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._hub = hub
        self._replica: Replica | None = None
        self._max_runs = max_runs
        self._lease_s = lease_s
        self._drivers: dict[str, RunDriver] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: OrderedDict[str, RunState] = OrderedDict()
        self._look = asyncio.Event()

    # --- driving ----------------------------------------------------------------------------------------------------

    async def drive(self, replica: Replica) -> None:
        """Claims runs, renews leases, for ever. A third of the lease is the beat, so two beats may be missed."""
        self._replica = replica
        while True:
            self._look.clear()
            wait_s = self._lease_s / 3
            try:
                wait_s = await self._beat(replica)
            except AnnealError as e:
                log.warning("beat missed", extra={"reason": e.reason, "detail": e.message})
            try:
                async with asyncio.timeout(wait_s):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def _beat(self, replica: Replica) -> float:
        """Renews and claims; the seconds until the next beat, which is not later than a lease that ends elsewhere."""
        held = await self._store.renew(replica.owner, self._lease_s, list(self._drivers))
        for run_id in set(self._drivers) - held:
            if not self._drivers[run_id].state.ended:
                log.warning("run lost to another replica", extra={"run_id": run_id})
                self._tasks[run_id].cancel()
        room = self._max_runs - len(self._drivers)
        next_s = None
        if room > 0:
            claimed = await self._store.claim(replica, self._lease_s, room, list(self._drivers))
            next_s = claimed.next_s
            if claimed.runs:
                await faultpoint(AFTER_CLAIM)
            for run_id, token in claimed.runs:
                self._take(run_id, token)
        beat_s = self._lease_s / 3
        return beat_s if next_s is None else min(beat_s, max(next_s, 0.0) + _CLAIM_MARGIN_S)

    async def keep_targets(self) -> None:
        """Renews the leases of all targets, for ever. Apart from the beat: a restore under way makes a renewal wait."""
        while True:
            await asyncio.gather(*(d.keep_target() for d in self._drivers.values()))
            await asyncio.sleep(self._lease_s / 3)

    def _take(self, run_id: str, token: int) -> None:
        driver = RunDriver(
            run_id=run_id,
            token=token,
            store=self._store,
            dispatcher=self._dispatcher,
            clock=self._clock,
            published=self._hub.notify,
        )
        self._drivers[run_id] = driver
        self._tasks[run_id] = asyncio.create_task(self._drive_one(driver))

    async def _drive_one(self, driver: RunDriver) -> None:
        try:
            await driver.run()
        except StaleToken as e:
            log.warning("run let go", extra={"run_id": driver.run_id, "detail": e.message})
        except AnnealError as e:
            log.warning("run set aside", extra={"run_id": driver.run_id, "reason": e.reason, "detail": e.message})
        except Exception:
            log.exception("run set aside", extra={"run_id": driver.run_id})
        finally:
            if self._drivers.get(driver.run_id) is driver:
                del self._drivers[driver.run_id]
                del self._tasks[driver.run_id]
            self._hub.notify(driver.run_id)

    async def stop(self) -> None:
        """Lets all runs go, so that another replica can take them at once."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._replica is None:
            return
        try:
            await self._store.let_go(self._replica.owner)
        except AnnealError as e:
            log.warning("runs not let go: they are free when their lease ends", extra={"reason": e.reason})

    # --- what may be asked ------------------------------------------------------------------------------------------

    async def create(self, key: str, request: bytes, spec: ev.Spec, limits: ev.Limits, policy: SkillPolicy) -> str:
        """Creates a run that is already checked; returns its id, the same again for the same key and request."""
        run_id = new_run_id()
        payload = ev.RunCreated(engine=ev.ENGINE, spec=spec, limits=limits, policy=policy)
        at = self._clock.now()
        first = chain.link(
            run_id=run_id,
            seq=1,
            at=at,
            type=payload.type,
            actor="person",
            payload=payload.model_dump(mode="json"),
            prev_hash=chain.GENESIS,
        )
        summary = run_message(evolve(RunState(), first), at, items=False).SerializeToString()
        return await self.begin(key, request, [first], summary)

    async def begin(self, key: str, request: bytes, events: Sequence[chain.Event], summary: bytes) -> str:
        """A run with these first events, which some replica takes up at once; returns its id."""
        created = await self._store.create_run(key, request, events, summary)
        await faultpoint(AFTER_CREATE)
        self._look.set()
        return created

    async def report(self, run_id: str, command_id: str, result: Result) -> bool:
        """Takes a result in. Raises Unavailable while no driver of this replica has the run."""
        if result.command_id != command_id:
            raise InvalidArgument("result is for another command", field="result_json")
        driver = self._drivers.get(run_id)
        if driver is None:
            head = await self._store.head(run_id)
            if head.ended:
                return False
            raise Unavailable(f"run {run_id} is being taken over; report again")
        return await driver.submit(ev.CommandFinished(command_id=command_id, result=result), actor="worker")

    async def progress(
        self, run_id: str, command_id: str, text: str, outcome: DeferredItemOutcome | None
    ) -> tuple[str, ...] | None:
        """Notes what a skill tells while it resolves deferred items: the items settled so far; None: nobody waits.

        Raises Unavailable while the run is being taken over.
        """
        driver = self._drivers.get(run_id)
        if driver is None:
            if (await self.state(run_id)).ended:
                return None
            raise Unavailable(f"run {run_id} is being taken over; report again")
        pending = driver.state.pending.get(command_id)
        if pending is None or pending.kind != "resolve_deferred":
            return None
        settled = settled_in(driver.state, pending.mode)
        if (text and outcome is None) or (outcome is not None and outcome.item_id not in settled):
            event = ev.DeferredProgress(command_id=command_id, text=text, outcome=outcome)
            if not await driver.submit(event, actor="evaluator"):
                return None
        return settled_in(driver.state, pending.mode)

    def drives(self, run_id: str) -> bool:
        """Is the run in this replica's hands?"""
        return run_id in self._drivers

    def driven(self) -> list[RunState]:
        """The runs in this replica's hands, as they stand."""
        return [driver.state for driver in self._drivers.values() if driver.state.seq]

    async def submit(self, run_id: str, payload: ev.Payload, *, actor: str) -> bool:
        """Something from outside for a run. False: it does not fit, or the run has ended. Raises Unavailable."""
        driver = self._drivers.get(run_id)
        if driver is not None:
            return await driver.submit(payload, actor=actor)
        if (await self.state(run_id)).ended:
            return False
        raise Unavailable(f"run {run_id} is being taken over; try again")

    async def cancel(self, run_id: str, reason: str) -> str:
        """Asks a run to end between two steps; returns its phase. Raises FailedPrecondition where it has ended."""
        driver = self._drivers.get(run_id)
        if driver is None:
            state = await self.state(run_id)
            if state.ended:
                raise FailedPrecondition(f"run {run_id} is {state.phase.value} already", field="run_id")
            raise Unavailable(f"run {run_id} is being taken over; try again")
        if not driver.state.cancel:
            await driver.submit(ev.CancelRequested(reason=reason or "cancelled"), actor="person")
        return driver.state.phase.value

    # --- what is told -----------------------------------------------------------------------------------------------

    async def state(self, run_id: str) -> RunState:
        """The run's state now. Raises NotFound; DataLoss where its stored log is damaged."""
        driver = self._drivers.get(run_id)
        if driver is not None and driver.state.seq:
            return driver.state
        if run_id in self._ended:
            self._ended.move_to_end(run_id)
            return self._ended[run_id]
        state = await stored_state(self._store, run_id)
        if state.ended:
            self._ended[run_id] = state
            while len(self._ended) > _CACHED_STATES:
                self._ended.popitem(last=False)
        return state

    async def events(self, run_id: str, after: int, *, follow: bool) -> AsyncIterator[chain.Event]:
        """The run's events after `after`; with follow also those to come, until the run has ended. Raises NotFound."""
        while True:
            head = await self._store.head(run_id)
            seen = self._hub.mark(run_id)
            while batch := await self._store.events(run_id, after=after, limit=_PAGE):
                for event in batch:
                    yield event
                after = batch[-1].seq
            if head.ended or not follow:
                return
            await self._hub.wait(run_id, seen)

    async def verify(self, run_id: str) -> chain.Verification:
        """Recomputes chain and fold of the stored log, and holds its end against the recorded head."""
        try:
            state = await stored_state(self._store, run_id)
        except DataLoss as e:
            bad = int(e.details["seq"])
            return chain.Verification(ok=False, events=bad - 1, head="", first_bad=bad, reason=e.details["why"])
        if state.origin is not None and not await is_of_its_parent(self._store, state):
            bad = state.origin.seq + 1
            why = f"the events before event {bad} are not those of run {state.origin.parent}, which it names"
            return chain.Verification(ok=False, events=bad - 1, head="", first_bad=bad, reason=why)
        return chain.Verification(ok=True, events=state.seq, head=state.head)

    async def summaries(self, limit: int) -> list[bytes]:
        """Serialised runs without items, newest first."""
        return await self._store.summaries(limit)

    async def put_blob(self, claimed: str, media_type: str, content: bytes) -> str:
        """Stores content under its digest. Raises InvalidArgument where the claimed name is another."""
        if len(content) > _MAX_BLOB:
            raise InvalidArgument(f"may have {_MAX_BLOB} bytes at the most", field="content")
        sha = sha256_hex(content)
        if claimed and claimed != sha:
            raise InvalidArgument("is not the SHA-256 of the content", field="idempotency_key")
        await self._store.put_blob(sha, media_type or "application/octet-stream", content)
        await faultpoint(AFTER_BLOB)
        return sha

    async def get_blob(self, sha256: str) -> tuple[str, bytes]:
        """Media type and content of a blob. Raises NotFound."""
        return await self._store.get_blob(sha256)
