"""Publishes what was committed: reads the outbox in order, sends, deletes. At least once; the bus drops repetitions."""

import asyncio
import logging

from anneal_runtime.bus import Bus
from anneal_runtime.errors import AnnealError

from anneal_supervisor.store import Store

log = logging.getLogger(__name__)

_BATCH = 100
_LOOK_AGAIN_S = 2.0
_RETRY_S = 0.5


class Outbox:
    """One publisher a replica; several replicas may send a row twice, never not at all."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._wake.clear()
            try:
                while await self._send_batch():
                    pass
                wait = _LOOK_AGAIN_S
            except AnnealError as e:
                log.warning("outbox waits", extra={"reason": e.reason, "detail": e.message})
                wait = _RETRY_S
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _send_batch(self) -> bool:
        rows = await self._store.take_outgoing(_BATCH)
        if not rows:
            return False
        await asyncio.gather(*(self._bus.publish(o.subject, o.data, msg_id=o.msg_id) for _, o in rows))
        await self._store.drop_outgoing([row_id for row_id, _ in rows])
        return True
