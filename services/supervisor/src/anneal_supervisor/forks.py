"""Forks: a new run with the past of another one, on the target put back to that moment.

Everything is checked before anything is written: the moment, the target, the saved state of that moment, the bounds.
Every error names its field. What is written is one transaction: the other run's events chained anew, and `run_forked`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.evolve import evolve
from anneal_core.fork import nothing_left
from anneal_core.state import RunState
from anneal_runtime.clock import Clock
from anneal_runtime.durations import seconds_of
from anneal_runtime.errors import FailedPrecondition, InvalidArgument

from anneal_supervisor.checks import MAX_ATTEMPTS, free_target
from anneal_supervisor.control import MAX_BY
from anneal_supervisor.domain import new_run_id
from anneal_supervisor.history import told
from anneal_supervisor.settings import SupervisorSettings
from anneal_supervisor.store import Store
from anneal_supervisor.view import run_message

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub

_MAY = ("author", "choose", "none")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A fork as it was asked for. bounds: name -> value, as text."""

    run_id: str
    seq: int
    by: str
    model_profile: str = ""
    model_may: str = ""
    bounds: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a fork shares with its parent, and where that one stands. stood: generation -> its first and last event."""

    events: list[chain.Event]
    moment: RunState
    parent: RunState
    stood: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """A bound that a fork may change. name: in Limits; time: its value is a length of time."""

    name: str
    least: int
    most: int
    time: bool = False


def _bounds(settings: SupervisorSettings) -> dict[str, _Bound]:
    return {
        "max_attempts": _Bound(name="max_attempts", least=1, most=MAX_ATTEMPTS),
        "max_steps": _Bound(name="max_steps", least=5, most=settings.max_steps),
        "time_budget": _Bound(name="time_budget_s", least=1, most=int(settings.max_time_s), time=True),
        "approval_ttl": _Bound(name="approval_ttl_s", least=10, most=7 * 86_400, time=True),
        "max_gaps": _Bound(name="max_gaps", least=1, most=MAX_ATTEMPTS),
        "max_group": _Bound(name="max_group", least=1, most=100),
        "max_reflections": _Bound(name="max_reflections", least=0, most=100),
        "repair_rounds": _Bound(name="repair_rounds", least=0, most=10),
        "gate_rounds": _Bound(name="gate_rounds", least=0, most=10),
    }


def changed_bounds(given: Mapping[str, str], settings: SupervisorSettings) -> dict[str, int]:
    """The bounds that are to be others, by their names in Limits. Raises InvalidArgument naming the field."""
    known, found = _bounds(settings), dict[str, int]()
    for key, text in given.items():
        bound, field = known.get(key), f"set.{key[:40]}"
        if bound is None:
            raise InvalidArgument(f"no such bound; there are {', '.join(sorted(known))}", field=field)
        try:
            value = seconds_of(text) if bound.time else int(text)
        except ValueError as e:
            problem = str(e) if bound.time else f"must be a whole number, not {text[:40]!r}"
            raise InvalidArgument(problem, field=field) from e
        if not bound.least <= value <= bound.most:
            unit = " s" if bound.time else ""
            raise InvalidArgument(f"must be between {bound.least} and {bound.most}{unit}", field=field)
        found[bound.name] = value
    return found


class Beginning(Protocol):
    """What is needed of the runs."""

    async def begin(self, key: str, request: bytes, events: list[chain.Event], summary: bytes) -> str: ...


class Forks:
    """Makes forks."""

    def __init__(
        self,
        runs: Beginning,
        store: Store,
        checkpoint: "CheckpointServiceAsyncStub",
        settings: SupervisorSettings,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._store = store
        self._checkpoint = checkpoint
        self._settings = settings
        self._clock = clock

    async def fork(self, key: str, request: bytes, wanted: Wanted) -> str:
        """The id of the new run; the same again for the same key and request. Raises AnnealError naming the field."""
        if not wanted.by:
            raise InvalidArgument("is required", field="by")
        if known := await self._store.created(key, request):
            return known
        limits = changed_bounds(wanted.bounds, self._settings)
        past = await self._past(wanted.run_id, wanted.seq)
        _check_steps(limits, past)
        generation = await self._generation(wanted, past)
        payload = ev.RunForked(
            parent=wanted.run_id,
            seq=wanted.seq,
            hash=past.moment.head,
            generation=generation,
            by=wanted.by[:MAX_BY],
            limits=dict(limits),
            model_profile=wanted.model_profile,
            model_may=_may(wanted),
        )
        at, run_id = self._clock.now(), new_run_id()
        events = await asyncio.to_thread(list, chain.renamed(past.events, run_id))
        events.append(
            chain.link(
                run_id=run_id,
                seq=wanted.seq + 1,
                at=at,
                type=payload.type,
                actor=f"person:{payload.by}",
                payload=payload.model_dump(mode="json"),
                prev_hash=events[-1].hash,
            )
        )
        state = evolve(past.moment, events[-1])
        if nothing_left(state):
            problem = f"after event {wanted.seq} of {wanted.run_id} nothing is left to do; fork it at an earlier one"
            raise FailedPrecondition(problem, field="seq")
        summary = run_message(state, at, items=False).SerializeToString()
        return await self._runs.begin(key, request, events, summary)

    async def _past(self, run_id: str, seq: int) -> Past:
        """Raises NotFound, DataLoss, InvalidArgument, FailedPrecondition."""
        events, state, moment = list[chain.Event](), RunState(), RunState()
        stood: dict[int, tuple[int, int]] = {}
        async for event, after in told(self._store, run_id):
            state = after
            if event.seq <= seq:
                events.append(event)
                moment = after
            # Before its first generation a run has touched nothing: that moment is the one of generation 0.
            number = max(after.generation, 0)
            stood[number] = (stood.get(number, (event.seq, 0))[0], event.seq)
        if not 1 <= seq <= state.seq:
            raise InvalidArgument(f"{run_id} has events 1 to {state.seq}, and no {seq}", field="seq")
        if (origin := state.origin) is not None and seq <= origin.seq:
            problem = f"events up to {origin.seq} are those of {origin.parent}: fork that run"
            raise InvalidArgument(problem, field="seq")
        if not state.ended:
            problem = f"run {run_id} is {state.shown}; a run is forked when it has ended (anneal cancel {run_id})"
            raise FailedPrecondition(problem, field="run_id")
        return Past(events=events, moment=moment, parent=state, stood=stood)

    async def _generation(self, wanted: Wanted, past: Past) -> int:
        """The generation to go back to; -1: none is needed. Raises where it is gone, or the target is not free."""
        spec = past.moment.spec
        assert spec is not None
        target = await free_target(spec.target, self._checkpoint)
        if spec.dry_run or past.parent.access is None:
            return -1
        if not target.can_snapshot:
            problem = f"{spec.target} has no snapshots: nothing can put it back to the moment of a fork"
            raise FailedPrecondition(problem, field="target")
        if past.parent.generation < 0:
            return -1
        generation = max(past.moment.generation, 0)
        request = cp.ListGenerationsRequest(target=spec.target, run_id=wanted.run_id)
        kept = [g.generation for g in (await self._checkpoint.ListGenerations(request)).generations]
        if generation not in kept:
            raise FailedPrecondition(_gone(wanted, generation, kept, past), field="seq")
        return generation


def _gone(wanted: Wanted, generation: int, kept: list[int], past: Past) -> str:
    """That the saved state of a moment is gone, and of which moments there are some."""
    first = past.parent.origin.seq + 1 if past.parent.origin is not None else 1
    there = [(g, *past.stood[g]) for g in kept if g in past.stood and past.stood[g][1] >= first]
    spans = ", ".join(f"{max(a, first)} to {b} (generation {g})" for g, a, b in there) or "none"
    return (
        f"event {wanted.seq} stands on generation {generation} of {wanted.run_id}, which is no longer kept; "
        f"events that can be forked: {spans}"
    )


def _check_steps(limits: Mapping[str, int], past: Past) -> None:
    steps = past.moment.steps
    if limits.get("max_steps", steps + 1) <= steps:
        raise InvalidArgument(f"{steps} steps are used already at that moment, and they count", field="set.max_steps")


def _may(wanted: Wanted) -> Literal["author", "choose", "none"]:
    """What the other model may do; of a profile about which nobody says anything: nothing."""
    if wanted.model_may and wanted.model_may not in _MAY:
        raise InvalidArgument(f"is one of {', '.join(_MAY)}", field="model_may")
    return cast(Literal["author", "choose", "none"], wanted.model_may or "none")
