"""Rules that apply by what the run installed are worked before the re-scan, not after it."""

from anneal_contracts.facts import Outcome
from anneal_contracts.work import Failed
from anneal_core import events as ev
from anneal_core.ordering import inapplicable_before
from anneal_core.replay import replay

from tests.unit.core.world import World, item


def test_what_applies_by_now_and_fails_is_worked_before_the_only_scan() -> None:
    w = World(items=[item("a")], inapplicable=("n", "x"), newly=(item("n"),))
    w.create()
    state = w.run()
    assert state.items["n"].state is ev.ItemStateName.COMPLETED
    assert w.sent.count("verify") == 1
    assert w.sent.index("look_again") < w.sent.index("verify")
    assert state.became_applicable() == {"n": Outcome.PASS}
    assert replay(w.log).difference is None


def test_nobody_looks_again_where_nothing_was_inapplicable_or_nothing_was_changed() -> None:
    for w in (
        World(items=[item("a")]),
        World(items=[item("a")], inapplicable=("n",), verdicts={("a", n): Outcome.FAIL for n in (1, 2, 3)}),
    ):
        w.create()
        w.run()
        assert "look_again" not in w.sent


def test_only_what_was_asked_for_is_looked_at_and_worked() -> None:
    w = World(items=[item("a")], inapplicable=("m", "n", "x"), newly=(item("n"),))
    w.create(item_ids=("a", "m", "x"), exclusions={"m": "not ours"})
    state = w.run()
    assert inapplicable_before(state) == ("x",)
    assert w.sent.count("look_again") == 1
    assert set(state.items) == {"a"}


def test_a_round_of_mending_is_still_left_after_a_second_look() -> None:
    w = World(
        items=[item("a")],
        inapplicable=("n",),
        newly=(item("n"),),
        passing=("p",),
        after={"p": Outcome.FAIL},
        regressed=(item("p"),),
    )
    w.create()
    state = w.run()
    assert state.items["p"].state is ev.ItemStateName.COMPLETED
    assert w.sent.count("verify") == 2
    assert state.repairs == 1 and state.round == 2


def test_a_look_that_fails_leaves_it_to_the_scan() -> None:
    w = World(items=[item("a")], inapplicable=("n",))
    w.override = lambda _s, p: (
        Failed(command_id=p.command_id, reason="internal", message="no") if p.kind == "look_again" else None
    )
    w.create()
    state = w.run()
    assert state.phase == "finished"
    assert any(n.startswith("look_again: internal") for n in state.notes)
