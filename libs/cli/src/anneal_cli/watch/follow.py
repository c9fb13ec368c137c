"""Follows a run: events wake us, the Run message is what is shown. Survives a gateway that goes away for a while."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from anneal.common.v1.common_pb2 import Event
from anneal.supervisor.v1.supervisor_pb2 import ReadEventsRequest, Run
from anneal_runtime.errors import AnnealError, NotFound

from anneal_cli.gateway import Gateway
from anneal_cli.text import has_ended

# At most five looks a second, and one a second where nothing happens (the clock goes on).
BUSY_S, IDLE_S = 0.2, 1.0
# Seconds without an answer after which watching is given up.
GIVE_UP_S = 120.0
_VERBS = {
    "discover": "full scan",
    "plan": "planning",
    "snapshot": "keeping",
    "restore": "reverting",
    "apply": "applying",
    "evaluate": "evaluating",
    "evaluate_group": "evaluating together",
    "gate": "integration gate",
    "look_again": "looking at what did not apply before",
    "resolve_deferred": "resolving what was deferred",
    "propose": "the model writes",
    "reflect": "the model reflects",
    "verify": "full re-scan",
    "lease": "taking the target",
    "acquire_lease": "taking the target",
    "release": "giving the target back",
    "release_lease": "giving the target back",
    "record": "remembering",
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a run. changed: ids of items whose state changed since the look before."""

    run: Run
    doing: str = ""
    changed: tuple[str, ...] = ()
    trouble: str = ""


@dataclass
class _Stream:
    """What the event stream told so far."""

    seq: int = 0
    doing: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: Event) -> None:
        self.seq = max(self.seq, event.seq)
        self.doing = doing_of(event, self.doing)
        self.news.set()


def doing_of(event: Event, before: str) -> str:
    """What the engine is at after this event, in words; unknown events change nothing."""
    if event.type != "command_issued":
        return before
    try:
        kind = str(json.loads(event.payload_json).get("kind", ""))
    except (ValueError, AttributeError):
        return before
    return _VERBS.get(kind, kind)


async def looks(
    gateway: Gateway, run_id: str, *, now: Callable[[], float] = time.monotonic, give_up_s: float = GIVE_UP_S
) -> AsyncIterator[Look]:
    """Looks at the run until it has ended; the last look shows it ended. Raises the error that lasted give_up_s."""
    stream = _Stream()
    listener = asyncio.create_task(_listen(gateway, run_id, stream), name="events of the run")
    seen: dict[str, str] = {}
    run, well_at = Run(run_id=run_id), now()
    try:
        while True:
            stream.news.clear()
            trouble = ""
            try:
                run, well_at = await gateway.exact_run(run_id), now()
            except AnnealError as e:
                if not e.retryable or now() - well_at > give_up_s:
                    raise
                trouble = f"no answer from {gateway.address}, trying again ({e.reason})"
            changed = tuple(item.id for item in run.items if seen.get(item.id) != item.state)
            seen = {item.id: item.state for item in run.items}
            yield Look(run=run, doing=stream.doing, changed=changed, trouble=trouble)
            if has_ended(run):
                return
            await _pause(stream)
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener


async def _pause(stream: _Stream) -> None:
    """Until there is news, a second at the most; never less than the least time between two looks."""
    await asyncio.sleep(BUSY_S)
    with suppress(TimeoutError):
        await asyncio.wait_for(stream.news.wait(), IDLE_S - BUSY_S)


async def _listen(gateway: Gateway, run_id: str, stream: _Stream) -> None:
    """Reads events; after a break goes on behind the last one that came."""
    while True:
        request = ReadEventsRequest(run_id=run_id, after_seq=stream.seq, follow=True)
        try:
            async for answer in gateway.stub.WatchRun(request):
                stream.take(answer.event)
        except NotFound:
            return  # the looks say so
        except AnnealError:
            stream.news.set()
        # The stream ends with the run, or with the gateway: the looks find out which.
        await asyncio.sleep(BUSY_S)
