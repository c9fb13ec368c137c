"""The model's part in the loop: facts before a script, a plan, a lesson, a second look; each bounded, each an event."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from anneal_contracts.facts import FixSource, Mutability, Outcome, ProbeCall, ProbeState
from anneal_contracts.turns import (
    Chosen,
    Decided,
    Fact,
    Learnt,
    Lesson,
    Probed,
    Propose,
    Proposed,
    Recollection,
    Strategy,
)
from anneal_contracts.work import Candidate, Failed, Ladder, Planned, Result, Usage
from anneal_core import budget, commands, turns
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.limits import ItemLimits, RoleLimits
from anneal_core.ordering import to_plan
from anneal_core.state import Pending, Phase, RunState
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.test_approvals import answer, until_waiting
from tests.unit.core.test_engine import fold
from tests.unit.core.world import World, candidate, item

ROLES = RoleLimits(probes=4, probes_now=2, lessons=3, choices=2, engagements=3, similarity=0.9)
PLAN = Strategy(diagnosis="d", approach="the drop-in file")
OTHER = Strategy(diagnosis="d2", approach="the unit file")
USAGE = Usage(calls=1, prompt_tokens=100, completion_tokens=20)


def asks(*paths: str) -> tuple[ProbeCall, ...]:
    return tuple(ProbeCall(tool="read_file", arguments={"path": p}) for p in paths)


def script(n: int, **changes: Any) -> Candidate:
    return candidate("a", n, source=FixSource.MODEL, **changes)


@dataclass
class Mind:
    """Answers for the model roles, from a script of what they say; without one, in the plainest way."""

    says: list[Proposed] = field(default_factory=list)
    decides: list[Decided] = field(default_factory=list)
    learns: list[Learnt] = field(default_factory=list)
    picks: list[str] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    recalled: dict[str, Ladder] = field(default_factory=dict)

    def __call__(self, state: RunState, p: Pending) -> Result | None:
        cid = {"command_id": p.command_id}
        if p.kind in ("propose", "probe", "learn", "plan_item", "review_item", "choose_item"):
            self.told.append(commands.build(state, p))
        match p.kind:
            case "plan" if self.recalled:
                ladders = tuple(self.recalled.get(i.id, Ladder(item_id=i.id)) for i in to_plan(state))
                return Planned(**cid, ladders=ladders, model_may="author")
            case "propose":
                said = self.says.pop(0) if self.says else Proposed(command_id="", mode="contract_violation")
                return said.model_copy(update={**cid, "usage": USAGE})
            case "probe":
                return Probed(**cid, state=ProbeState.ANSWERED, blob=f"blob-{p.attempt}", size=7)
            case "learn":
                lesson = Lesson(attempt=p.attempt, mechanism="m", lesson=f"lesson {p.attempt}", certainty="low")
                learnt = self.learns.pop(0) if self.learns else Learnt(command_id="", lesson=lesson)
                return learnt.model_copy(update={**cid, "usage": USAGE})
            case "plan_item" | "review_item":
                plain = Decided(command_id="", decision="plan" if p.kind == "plan_item" else "continue", strategy=None)
                decided = self.decides.pop(0) if self.decides else plain
                return decided.model_copy(update={**cid, "usage": USAGE})
            case "choose_item":
                return Chosen(**cid, item_id=self.picks.pop(0) if self.picks else "", reason="it is first", usage=USAGE)
        return None


def said(candidate: Candidate | None = None, **changes: Any) -> Proposed:
    return Proposed(command_id="", candidate=candidate, **changes)


def world(mind: Mind, *ids: str, **changes: Any) -> World:
    names = ids or ("a",)
    base: dict[str, Any] = {"ladders": {i: [] for i in names}, "model_may": "author", "override": mind}
    return World(items=[item(i) for i in names], **{**base, **changes})


def run(w: World, *, roles: RoleLimits = ROLES, **limits: Any) -> RunState:
    w.create(limits=ev.Limits(roles=roles, **limits))
    return w.run()


def test_a_worker_asks_for_facts_and_is_told_the_answers_before_it_writes() -> None:
    mind = Mind(says=[said(probes=asks("/etc/x", "/etc/y")), said(script(5))])
    w = world(mind)
    state = run(w)
    assert w.sent.count("probe") == 2
    assert state.items["a"].state == "completed"
    first, *probes, last = [t for t in mind.told if t.kind in ("propose", "probe")]
    assert (first.probes_now, first.probes_left, first.facts) == (2, 4, ())
    assert [p.call.arguments["path"] for p in probes] == ["/etc/x", "/etc/y"]
    assert last.facts == tuple(
        Fact(call=c, state=ProbeState.ANSWERED, blob=f"blob-{n}") for n, c in enumerate(asks("/etc/x", "/etc/y"), 1)
    )
    assert (last.probes_now, last.probes_left, last.attempt) == (2, 2, 1)
    assert fold(w.log) == state


def test_every_question_is_a_counted_step_and_every_call_too() -> None:
    quiet = run(world(Mind(says=[said(script(5))])))
    asking = run(world(Mind(says=[said(probes=asks("/a", "/b")), said(script(5))])))
    assert asking.steps == quiet.steps + 3
    assert asking.items["a"].steps == quiet.items["a"].steps + 3
    assert asking.items["a"].tokens == quiet.items["a"].tokens + 120


def test_a_model_that_asks_for_ever_uses_up_its_questions_and_then_its_turns() -> None:
    mind = Mind(says=[said(probes=asks(f"/{n}/a", f"/{n}/b", f"/{n}/c")) for n in range(50)])
    w = world(mind)
    state = run(w)
    assert w.sent.count("probe") == 4
    assert w.sent.count("propose") == 2 + 3
    assert state.items["a"].state == "escalated"
    assert state.items["a"].decided_by == "attempts"
    assert "more facts than it may" in state.items["a"].reason


def test_a_question_that_cannot_be_answered_is_a_fact_as_well() -> None:
    mind = Mind(says=[said(probes=asks("/x")), said(script(5))])

    def broken(state: RunState, p: Pending) -> Result | None:
        if p.kind == "probe":
            return Failed(command_id=p.command_id, reason="internal", message="no", retryable=False)
        return mind(state, p)

    state = run(world(mind, override=broken))
    (known,) = state.items["a"].facts
    assert (known.fact.state, known.fact.detail) == (ProbeState.FAILED, "internal: no")
    assert state.items["a"].state == "completed"


def test_the_architect_plans_before_the_first_script_and_its_plan_is_told() -> None:
    mind = Mind(decides=[Decided(command_id="", decision="plan", strategy=PLAN)], says=[said(script(5))])
    w = world(mind)
    run(w)
    assert w.sent.index("plan_item") < w.sent.index("propose")
    assert next(t for t in mind.told if isinstance(t, Propose)).strategy == PLAN
    assert w.sent.count("plan_item") == 1


def test_a_plan_that_names_what_is_missing_ends_the_item() -> None:
    gone = Decided(command_id="", decision="escalate", reason="no log host is known", missing_input="the log host")
    w = world(Mind(decides=[gone]))
    state = run(w)
    assert "propose" not in w.sent
    a = state.items["a"]
    assert (a.state, a.decided_by, a.missing_input) == ("escalated", "architect", "the log host")
    assert "no log host is known" in a.reason


def failing(
    *turns_: Proposed, decides: tuple[Decided, ...] = (), outcome: Outcome = Outcome.FAIL, **more: Any
) -> World:
    mind = Mind(says=list(turns_), decides=list(decides))
    verdicts = {("a", n): outcome for n in range(1, 9)}
    exits = {("a", n): 1 for n in range(1, 9)}
    return world(mind, verdicts=verdicts, exits=more.pop("exits", exits), **more)


def test_the_architect_looks_again_after_two_failed_attempts_and_takes_another_way() -> None:
    pivot = Decided(command_id="", decision="pivot", reason="r", strategy=OTHER)
    plan = Decided(command_id="", decision="plan", strategy=PLAN)
    w = failing(*(said(script(n)) for n in range(5, 9)), decides=(plan, pivot))
    run(w, max_attempts=4)
    mind = w.override
    assert isinstance(mind, Mind)
    reviews = [t for t in mind.told if t.kind == "review_item"]
    assert [r.why for r in reviews] == ["2 tries failed since the last look"]
    assert reviews[0].tries_left == 2
    assert [t.strategy for t in mind.told if isinstance(t, Propose)] == [PLAN, PLAN, OTHER, OTHER]
    assert w.state.items["a"].decided_by == "attempts"


@pytest.mark.parametrize(
    ("second", "outcome", "exits", "why"),
    [
        ({"similarity": 0.95}, Outcome.FAIL, None, "plateau: a script is 0.95 like an earlier one"),
        ({}, Outcome.FAIL, {}, "2 attempts ran well and left the check failing"),
        ({"mode": "missing_input", "detail": "the log host"}, Outcome.FAIL, None, "an input is missing: the log host"),
    ],
)
def test_the_architect_looks_again_on_evidence(
    second: dict[str, Any], outcome: Outcome, exits: dict[tuple[str, int], int] | None, why: str
) -> None:
    gone = Decided(command_id="", decision="escalate", reason="it is enough")
    plan = Decided(command_id="", decision="plan", strategy=PLAN)
    changes = {} if exits is None else {"exits": exits}
    candidate = None if "mode" in second else script(6)
    w = failing(said(script(5)), said(candidate, **second), decides=(plan, gone), outcome=outcome, **changes)
    state = run(w, max_attempts=5, max_gaps=5)
    engagement = state.items["a"].engagements[-1]
    assert why in engagement.why
    assert state.items["a"].decided_by == "architect"
    assert w.sent.count("propose") == 2


def test_a_lesson_like_an_earlier_one_is_a_plateau_too() -> None:
    w = failing(said(script(5)), said(script(6)), said(script(7)))
    mind = w.override
    assert isinstance(mind, Mind)
    lesson = Lesson(attempt=1, mechanism="m", lesson="l", certainty="low")
    mind.learns = [Learnt(command_id="", lesson=lesson), Learnt(command_id="", lesson=lesson, similarity=0.97)]
    state = run(w, roles=ROLES.model_copy(update={"review_failures": 99}), max_attempts=4)
    assert any("a lesson is 0.97 like" in e.why for e in state.items["a"].engagements)


def test_the_reflector_looks_at_each_failed_attempt_of_the_models_and_what_it_learnt_is_told() -> None:
    w = failing(said(script(5)), said(script(6)))
    w.ladders = {"a": [candidate("a", 0)]}
    state = run(w)
    mind = w.override
    assert isinstance(mind, Mind)
    assert w.sent.count("learn") == 2, "the vendor's fix is not the model's"
    learns = [t for t in mind.told if t.kind == "learn"]
    assert [t.attempt for t in learns] == [2, 3]
    assert [x.lesson for t in mind.told if isinstance(t, Propose) for x in t.lessons] == ["lesson 2"]
    assert [x.attempt for x in state.items["a"].lessons] == [2, 3]


def test_without_limits_of_roles_a_model_only_proposes_as_it_always_did() -> None:
    w = failing(said(probes=asks("/x")), said(script(5)), said(None, mode="missing_input", detail="x"))
    w.create(limits=ev.Limits())
    state = w.run()
    assert {"probe", "learn", "plan_item", "review_item", "choose_item"}.isdisjoint(w.sent)
    assert w.sent.count("propose") == 3
    assert state.items["a"].decided_by == "missing_input"


def test_a_model_that_may_not_author_is_asked_for_nothing() -> None:
    w = world(Mind(), "a", "b", model_may="choose")
    run(w)
    assert {"probe", "learn", "plan_item", "review_item", "choose_item", "propose"}.isdisjoint(w.sent)


def test_the_architect_picks_among_items_that_are_ready_and_the_reason_is_kept() -> None:
    mind = Mind(picks=["c", "b"], says=[said(candidate(i, 5, source=FixSource.MODEL)) for i in "cba"])
    w = world(mind, "a", "b", "c")
    state = run(w)
    assert [t.attempt for t in mind.told if t.kind == "propose"] == [1, 1, 1]
    assert [t.item.id for t in mind.told if t.kind == "propose"] == ["c", "b", "a"]
    offered = [tuple(i.id for i in t.items) for t in mind.told if t.kind == "choose_item"]
    assert offered == [("a", "b", "c"), ("a", "b")]
    assert state.items["c"].chosen_why == "it is first"
    assert fold(w.log) == state


def test_a_choice_that_was_not_offered_leaves_it_to_the_order() -> None:
    mind = Mind(picks=["zz", "a"])
    w = world(mind, "a", "b", "c")
    state = run(w, max_attempts=1)
    assert [t.item.id for t in mind.told if t.kind == "propose"] == ["a", "b", "c"]
    assert w.sent.count("choose_item") == 2
    assert all(not i.chosen_why for i in state.items.values())


def test_an_item_with_a_script_at_hand_is_nobodys_choice() -> None:
    ladders = {"a": [candidate("a", 0)], "b": [], "c": [], "d": [candidate("d", 0)]}
    mind = Mind(picks=["c"])
    w = world(mind, "a", "b", "c", "d", ladders=ladders)
    run(w, max_attempts=1)
    offered = [tuple(i.id for i in t.items) for t in mind.told if t.kind == "choose_item"]
    assert offered == [("b", "c")]
    assert w.sent.index("choose_item") > w.sent.index("apply"), "a comes first, by the order"


def test_only_ties_of_the_skills_order_are_offered() -> None:
    mind = Mind(picks=["b"])
    w = world(mind, "a", "b")
    w.items = [item("a", priority=1), item("b", priority=2)]
    run(w, max_attempts=1)
    assert "choose_item" not in w.sent


def test_an_item_keeps_to_its_tokens_and_the_turn_is_told_how_many_are_left() -> None:
    mind = Mind()
    w = world(mind)
    state = run(w, roles=RoleLimits(), item=ItemLimits(tokens=200), max_attempts=9)
    assert [t.tokens_left for t in mind.told] == [200, 80]
    assert state.items["a"].decided_by == "item_tokens"
    assert "240 of the item's 200 tokens" in state.items["a"].reason


def test_an_item_keeps_to_its_steps() -> None:
    w = failing(*(said(script(n)) for n in range(5, 12)))
    state = run(w, roles=RoleLimits(), item=ItemLimits(steps=8), max_attempts=9)
    assert state.items["a"].steps <= 8
    assert state.items["a"].decided_by == "item_steps"


@pytest.mark.parametrize(("usual", "seconds"), [(0.0, 100.0), (10.0, 30.0), (1.0, 20.0), (90.0, 100.0)])
def test_the_time_of_an_item_follows_what_such_items_took_within_bounds(usual: float, seconds: float) -> None:
    bounds = ItemLimits(time_s=100, time_factor=3, time_floor_s=20)
    recalled = {"a": Ladder(item_id="a", usual_s=usual)}
    w = world(Mind(recalled=recalled))
    state = run(w, roles=RoleLimits(), item=bounds, max_attempts=1)
    assert budget.item_seconds(state, state.items["a"]) == seconds


def test_an_item_whose_time_is_up_goes_to_a_person_and_the_run_goes_on() -> None:
    mind = Mind()

    def slow(state: RunState, p: Pending) -> Result | None:
        if p.kind == "propose" and p.item_id == "a":
            w.now += 40
        return mind(state, p)

    w = world(mind, "a", "b", override=slow)
    state = run(w, roles=RoleLimits(), item=ItemLimits(time_s=60), max_attempts=9)
    assert state.items["a"].decided_by == "item_time"
    assert len(state.items["a"].proposals) == 2
    assert state.items["b"].decided_by == "attempts"


def test_the_time_that_a_person_takes_and_a_pause_are_not_the_items_time() -> None:
    rungs = [candidate("a", 0), candidate("a", 1, mutability=Mutability.DESTRUCTIVE), candidate("a", 2)]
    failing = {("a", 1): Outcome.FAIL, ("a", 2): Outcome.FAIL}
    w = world(Mind(), ladders={"a": rungs}, model_may="none", verdicts=failing)
    until_waiting(w, item=ItemLimits(time_s=60))
    w.now += 500
    answer(w)
    w.append(ev.PauseRequested(by="ann"), actor="person")
    w.now += 500
    w.append(ev.ResumeRequested(by="ann"), actor="person")
    state = w.run()
    assert (state.items["a"].state, len(state.items["a"].attempts)) == ("completed", 3)


def test_a_lesson_that_memory_gave_is_told_and_a_tip_is_not() -> None:
    memory = (Recollection(id="m1", kind="lesson", text="look first"), Recollection(id="m2", kind="tip", text="t"))
    mind = Mind(recalled={"a": Ladder(item_id="a", recalled=memory)})
    state = run(world(mind), max_attempts=1)
    assert [r.id for t in mind.told if isinstance(t, Propose) for r in t.recalled] == ["m1"]
    assert state.items["a"].recalled == memory


def test_a_turn_never_makes_more_calls_than_the_caps_leave() -> None:
    mind = Mind()
    w = world(mind)
    state = run(w, roles=RoleLimits(), max_steps=8, max_attempts=20)
    assert min(t.calls_left for t in mind.told) >= 1
    assert state.steps <= 8


PROPOSALS = st.one_of(
    st.builds(lambda n, s: said(script(n), similarity=s), st.integers(5, 20), st.floats(0, 1)),
    st.builds(lambda n: said(probes=asks(*(f"/{k}" for k in range(n)))), st.integers(1, 6)),
    st.sampled_from([said(mode="contract_violation"), said(mode="missing_input", detail="x"), said(script(5))]),
)
DECISIONS = st.sampled_from(
    [
        Decided(command_id="", decision="continue"),
        Decided(command_id="", decision="pivot", strategy=OTHER),
        Decided(command_id="", decision="escalate", reason="r"),
        Decided(command_id="", mode="contract_violation"),
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    says=st.lists(PROPOSALS, max_size=40),
    decides=st.lists(DECISIONS, max_size=10),
    picks=st.lists(st.sampled_from(["a", "b", "zz", ""]), max_size=4),
    outcomes=st.lists(st.sampled_from([Outcome.PASS, Outcome.FAIL]), min_size=12, max_size=12),
    max_steps=st.integers(12, 120),
)
def test_whatever_the_roles_say_a_run_ends_within_its_bounds(
    says: list[Proposed], decides: list[Decided], picks: list[str], outcomes: list[Outcome], max_steps: int
) -> None:
    verdicts = {(i, n): o for i, n, o in zip("abab" * 3, (1, 1, 2, 2, 3, 3) * 2, outcomes, strict=True)}
    w = world(Mind(says=list(says), decides=list(decides), picks=list(picks)), "a", "b", verdicts=verdicts)
    bounds = ItemLimits(steps=40, tokens=3000)
    state = run(w, max_attempts=4, max_steps=max_steps, item=bounds)
    assert state.phase is Phase.FINISHED
    assert state.steps <= max_steps
    for one in state.items.values():
        assert one.state in ("completed", "escalated", "skipped") and one.reason
        assert one.state == "completed" or one.decided_by
        assert len(one.facts) <= ROLES.probes and len(one.engagements) <= ROLES.engagements
        assert one.steps <= 40 and one.tokens < 3000 + 120
    assert state.choices <= ROLES.choices
    assert fold(w.log) == state


def test_deciding_again_over_a_log_with_all_roles_gives_the_same_events() -> None:
    says = [said(probes=asks("/x")), said(script(5)), said(script(6), similarity=0.95)]
    w = failing(*says, exits={})
    run(w, max_attempts=4)
    state, kinds = RunState(), Counter[str]()
    for event in w.log:
        if event.actor == "engine":
            assert event.payload in [p.model_dump(mode="json") for p in decide(state, event.at)]
            kinds[str(event.payload.get("kind", ""))] += 1
        state = evolve(state, event)
    assert {"plan_item", "probe", "propose", "learn", "review_item"} <= set(kinds)
    assert turns.known(state.items["a"])
