"""People's hand on a run: pause, resume, approvals, replay. Knows no gRPC."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol

from anneal_contracts.work import Candidate
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.replay import Replay, replay
from anneal_core.state import Approval, ItemState, RunState
from anneal_runtime.errors import FailedPrecondition, InvalidArgument, NotFound

_MAX_REASON = 500
MAX_BY = 200


@dataclass(frozen=True, kw_only=True)
class Question:
    """An approval with where it belongs. number: of the item's questions, from 1; action: what would run, as far as

    the ladder still has it.
    """

    state: RunState
    item: ItemState
    number: int
    approval: Approval
    action: Candidate | None

    @property
    def id(self) -> str:
        """RUN/ITEM/NUMBER. Not the attempt: where one script is refused, the next is asked about for the same one."""
        return f"{self.state.run_id}/{self.item.detail.id}/{self.number}"

    @property
    def standing(self) -> str:
        """The approval's state; void where it was asked and can no longer be answered."""
        newest = self.number == len(self.item.approvals)
        open_now = newest and self.item.state is ev.ItemStateName.WAITING and not self.state.ended
        return self.approval.state if open_now or self.approval.state != "asked" else "void"


class Runs(Protocol):
    """What is needed of the runs."""

    def driven(self) -> Iterable[RunState]: ...
    async def state(self, run_id: str) -> RunState: ...
    async def submit(self, run_id: str, payload: ev.Payload, *, actor: str) -> bool: ...
    def events(self, run_id: str, after: int, *, follow: bool) -> AsyncIterator[chain.Event]: ...


class Control:
    """One method a call."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def pause(self, run_id: str, by: str, reason: str) -> str:
        """Holds a run up; its state as people see it. Raises FailedPrecondition where it has ended."""
        state = await self._going_on(run_id)
        if not state.paused:
            event = ev.PauseRequested(by=by[:MAX_BY], reason=reason[:_MAX_REASON])
            await self._runs.submit(run_id, event, actor=f"person:{by[:MAX_BY]}")
        return (await self._runs.state(run_id)).shown

    async def resume(self, run_id: str, by: str) -> str:
        """Lets a run go on. Raises FailedPrecondition where it has ended or is not paused."""
        state = await self._going_on(run_id)
        if not state.paused:
            raise FailedPrecondition(f"run {run_id} is not paused, but {state.shown}", field="run_id")
        await self._runs.submit(run_id, ev.ResumeRequested(by=by[:MAX_BY]), actor=f"person:{by[:MAX_BY]}")
        return (await self._runs.state(run_id)).shown

    async def _going_on(self, run_id: str) -> RunState:
        state = await self._runs.state(run_id)
        if state.ended:
            raise FailedPrecondition(f"run {run_id} is {state.phase.value} already", field="run_id")
        return state

    async def approvals(self, run_id: str) -> list[Question]:
        """What is asked now of all runs, oldest first; of one run, also what was answered."""
        states = [await self._runs.state(run_id)] if run_id else list(self._runs.driven())
        found = [q for state in states for q in _questions(state)]
        shown = [q for q in found if run_id or q.standing == "asked"]
        return sorted(shown, key=lambda q: (q.approval.asked_at, q.id))

    async def approval(self, approval_id: str) -> Question:
        """One question. Raises NotFound."""
        run_id, _, rest = approval_id.partition("/")
        for question in _questions(await self._runs.state(run_id)) if rest else ():
            if question.id == approval_id:
                return question
        hint = {"hint": "anneal approvals list"}
        raise NotFound(f"there is no approval {approval_id[:200]!r}", field="id", details=hint)

    async def answer(self, approval_id: str, action_hash: str, *, granted: bool, by: str, reason: str) -> Question:
        """A person's word. Raises FailedPrecondition where it is too late, or about another action than was asked."""
        if not by:
            raise InvalidArgument("is required", field="by")
        question = await self.approval(approval_id)
        asked = question.approval
        if action_hash != asked.action_hash:
            raise FailedPrecondition("the action is not the one that was shown: look at it again", field="action_hash")
        event = ev.ApprovalAnswered(
            item_id=question.item.detail.id,
            attempt=asked.attempt,
            action_hash=action_hash,
            granted=granted,
            by=by[:MAX_BY],
            reason=reason[:_MAX_REASON],
        )
        taken = question.standing == "asked" and await self._runs.submit(
            question.state.run_id, event, actor=f"person:{by[:MAX_BY]}"
        )
        now = await self.approval(approval_id)
        if not taken and not _is_the_same_word(now.approval, event):
            raise FailedPrecondition(f"too late: {_told(now)}", field="id")
        return now

    async def replay(self, run_id: str) -> Replay:
        """The stored log, decided again."""
        return replay([event async for event in self._runs.events(run_id, 0, follow=False)])


def _is_the_same_word(approval: Approval, event: ev.ApprovalAnswered) -> bool:
    """An answer that is repeated is no second answer."""
    said = "granted" if event.granted else "denied"
    return (approval.state, approval.by, approval.reason) == (said, event.by, event.reason)


def _told(question: Question) -> str:
    by = f" by {question.approval.by}" if question.approval.by else ""
    return f"it is {question.standing}{by}"


def _questions(state: RunState) -> Iterable[Question]:
    for item_id in state.order:
        item = state.items[item_id]
        for number, approval in enumerate(item.approvals, start=1):
            action = next((c for c in item.ladder if c.hash == approval.action_hash), None)
            yield Question(state=state, item=item, number=number, approval=approval, action=action)
