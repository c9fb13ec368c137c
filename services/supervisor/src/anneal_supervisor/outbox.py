"""Publishes what was committed. At least once: the bus drops repetitions, and all who read can bear them.

What this process commits it sends at once, from memory: work by itself, news (which nobody waits for) a moment later
and together. Rows are removed from the table some time after, many with one commit. The table is read only for what was
left there: by a process that died, or while the bus was away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from anneal_runtime.bus import Bus
from anneal_runtime.errors import AnnealError
from anneal_runtime.faults import declare, faultpoint

from anneal_supervisor.news import is_news, merged
from anneal_supervisor.store import Left, Outgoing, Store

log = logging.getLogger(__name__)

BEFORE_PUBLISH = declare("supervisor.before_publish")
AFTER_PUBLISH = declare("supervisor.after_publish")

_BATCH = 100
# News and removals wait this long for more of their kind.
_GATHER_S = 0.1
_LOOK_AGAIN_S = 2.0
_RETRY_S = 0.5


class Outbox:
    """One publisher a replica; several replicas may send a row twice, never not at all."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._news: list[Left] = []
        # Rows that are being sent, and rows that were: to be left alone, and to be removed.
        self._under_way: set[int] = set()
        self._sent: set[int] = set()
        self._untidy = asyncio.Event()
        self._look = asyncio.Event()
        self._sending: set[asyncio.Task[bool]] = set()

    def send(self, left: Sequence[Left]) -> None:
        """Takes what a commit left in the outbox."""
        work = [row for row in left if not is_news(row[1])]
        self._news += [row for row in left if is_news(row[1])]
        self._under_way.update(row_id for row_id, _ in left)
        self._untidy.set()
        if work:
            task = asyncio.create_task(self._publish(_singly(work)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def wake(self) -> None:
        """Something was put into the table that send() was not given."""
        self._look.set()

    async def run(self) -> None:
        """For ever; ends with what was sent removed."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._sweep())
                loops.create_task(self._tidy())
        finally:
            for task in self._sending:
                task.cancel()
            await self._remove()

    async def _sweep(self) -> None:
        """Sends what lies in the table and nobody here is sending: every so often, and soon after a loss."""
        while True:
            self._look.clear()
            try:
                while rows := await self._store.take_outgoing(_BATCH, self._under_way | self._sent):
                    self._under_way.update(row_id for row_id, _ in rows)
                    if not await self._publish(_singly(rows)):
                        break
            except AnnealError as e:
                self._waits(e)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._look.wait()

    async def _tidy(self) -> None:
        """Sends the news and removes what was sent."""
        while True:
            await self._untidy.wait()
            self._untidy.clear()
            await asyncio.sleep(_GATHER_S)
            news, self._news = self._news, []
            if news:
                await self._publish(merged(news))
            await self._remove()

    async def _publish(self, messages: Sequence[tuple[Outgoing, Sequence[int]]]) -> bool:
        """Sends messages, each with the ids of the rows that it stands for, at once.

        False: some did not arrive, and their rows are left to the next look into the table.
        """
        await faultpoint(BEFORE_PUBLISH)
        asked = (self._bus.publish(o.subject, o.data, msg_id=o.msg_id) for o, _ in messages)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await faultpoint(AFTER_PUBLISH)
        lost = None
        for (_, ids), answer in zip(messages, answers, strict=True):
            self._under_way.difference_update(ids)
            if isinstance(answer, BaseException):
                lost = answer
            else:
                self._sent.update(ids)
        self._untidy.set()
        if lost is not None:
            self._waits(lost)
        return lost is None

    async def _remove(self) -> None:
        done = set(self._sent)
        if not done:
            return
        try:
            await self._store.drop_outgoing(done)
            self._sent -= done
        except AnnealError as e:
            # They stay known as sent, and the next removal takes them with it.
            self._waits(e)

    def _waits(self, e: BaseException) -> None:
        """Says so, and has the table looked at soon."""
        log.warning("outbox waits", extra={"detail": str(e)}, exc_info=None if isinstance(e, AnnealError) else e)
        asyncio.get_running_loop().call_later(_RETRY_S, self.wake)


def _singly(rows: Sequence[Left]) -> list[tuple[Outgoing, Sequence[int]]]:
    return [(message, (row_id,)) for row_id, message in rows]
