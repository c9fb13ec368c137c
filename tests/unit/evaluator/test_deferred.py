"""Resolving deferred items: what is told on the way, what is not asked for again, and a skill that miscounts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal_contracts.facts import DeferredItemOutcome, ItemDetail, Outcome
from anneal_contracts.work import DeferredResolved, ResolveDeferred
from anneal_evaluator.domain import Evaluations
from anneal_runtime.errors import FailedPrecondition, Internal
from anneal_skillkit.deferral import judged_again
from anneal_skillkit.interfaces import Emit, Judgement


def outcome(item_id: str) -> DeferredItemOutcome:
    return DeferredItemOutcome(item_id=item_id, state="completed", reason="in effect")


@dataclass
class Bench:
    """A bench whose supervisor keeps what it is told. gives: what the skill answers; None: what it was asked for."""

    settled: list[str] = field(default_factory=list)
    accepts: bool = True
    gives: list[str] | None = None
    told: list[sup.ReportProgressRequest] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)

    @property
    def supervisor(self) -> Any:
        return self

    async def ReportProgress(self, request: sup.ReportProgressRequest) -> sup.ReportProgressResponse:
        self.told.append(request)
        return sup.ReportProgressResponse(accepted=self.accepts, settled=self.settled)

    async def context(self, command: Any) -> Any:
        return SimpleNamespace()

    def skill(self, name: str) -> Any:
        return SimpleNamespace(runtime=self)

    async def resolve_deferred(
        self, ctx: Any, reason: str, items: Sequence[ItemDetail], emit: Emit
    ) -> Sequence[DeferredItemOutcome]:
        self.asked.append([i.id for i in items])
        for item in items:
            await emit(f"{item.id} is looked at", outcome(item.id))
        return [outcome(i) for i in (self.gives if self.gives is not None else self.asked[-1])]


async def resolve(bench: Bench, *ids: str) -> DeferredResolved:
    items = tuple(ItemDetail(id=i, title=i) for i in ids)
    command = ResolveDeferred(command_id="c", run_id="r", skill="s", target="t", deadline=0, mode="boot", items=items)
    result = await Evaluations(bench).resolve_deferred(command)  # type: ignore[arg-type]
    assert isinstance(result, DeferredResolved)
    return result


async def test_every_outcome_is_told_as_it_comes_and_given_at_the_end() -> None:
    bench = Bench()
    result = await resolve(bench, "a", "b")
    assert [o.item_id for o in result.outcomes] == ["a", "b"]
    assert [(t.command_id, t.text) for t in bench.told] == [("c", ""), ("c", "a is looked at"), ("c", "b is looked at")]
    assert DeferredItemOutcome.model_validate_json(bench.told[1].outcome_json) == outcome("a")
    assert len({t.idempotency_key for t in bench.told}) == 3


async def test_what_was_settled_before_a_crash_is_not_asked_for_again() -> None:
    bench = Bench(settled=["a"])
    assert [o.item_id for o in (await resolve(bench, "a", "b")).outcomes] == ["b"]
    assert bench.asked == [["b"]]
    assert (await resolve(Bench(settled=["a", "b"]), "a", "b")).outcomes == ()


async def test_a_skill_is_stopped_when_the_run_no_longer_waits() -> None:
    with pytest.raises(FailedPrecondition):
        await resolve(Bench(accepts=False), "a")


@pytest.mark.parametrize("gives", [[], ["a", "a"], ["a", "x"]])
async def test_a_skill_that_gives_other_outcomes_than_asked_for_is_in_error(gives: list[str]) -> None:
    with pytest.raises(Internal, match="2 deferred items"):
        await resolve(Bench(gives=gives), "a", "b")


async def test_judged_again_takes_the_check_at_its_word() -> None:
    async def evaluate(ctx: Any, item_id: str) -> Judgement:
        return Judgement(outcome=Outcome.PASS if item_id == "good" else Outcome.ERROR)

    told: list[tuple[str, str]] = []

    async def emit(text: str, said: DeferredItemOutcome | None) -> None:
        assert said is not None
        told.append((text, said.state))

    items = [ItemDetail(id=i, title=i) for i in ("good", "bad")]
    evaluator: Any = SimpleNamespace(evaluate=evaluate)
    outcomes = await judged_again(evaluator, SimpleNamespace(), "boot", items, emit)  # type: ignore[arg-type]
    assert told == [("1 of 2: good", "completed"), ("2 of 2: bad", "escalated")]
    assert [o.reason for o in outcomes] == ["boot: the check holds now", "boot: the check still says error"]
