"""Dependencies, waves, and what earlier runs suggest."""

import itertools

import pytest
from anneal_contracts.facts import ItemDetail
from anneal_core import graph
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.world import item

NOBODY: frozenset[str] = frozenset()


def details(**depends_on: str) -> dict[str, ItemDetail]:
    return {i: item(i, depends_on=tuple(d)) for i, d in depends_on.items()}


def test_an_unknown_dependency_is_named() -> None:
    assert graph.problem(details(a="x"), NOBODY) == "a depends on x, which does not exist"


def test_a_dependency_that_holds_already_is_none_to_wait_for() -> None:
    assert graph.problem(details(a="x"), frozenset("x")) == ""


@pytest.mark.parametrize(
    ("items", "path"),
    [
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"a": "b", "b": "c", "c": "b"}, "b -> c -> b"),
        ({"a": "a"}, "a -> a"),
        ({"a": "", "b": "ac", "c": "d", "d": "b"}, "b -> c -> d -> b"),
    ],
)
def test_a_circle_is_told_with_its_path(items: dict[str, str], path: str) -> None:
    assert graph.problem(details(**items), NOBODY).endswith(path)


def test_ten_thousand_items_in_a_row_are_no_circle() -> None:
    names = [f"i{n}" for n in range(10_000)]
    chain = {i: item(i, depends_on=(before,)) for before, i in itertools.pairwise(names)}
    items = {"i0": item("i0"), **chain}
    assert graph.problem(items, NOBODY) == ""
    assert len(graph.waves(names, items)) == 10_000


def test_waves_hold_what_does_not_depend_on_each_other_and_keep_the_order() -> None:
    items = details(a="", b="a", c="", d="bc", e="")
    assert graph.waves("ecdba", items) == (("e", "c", "a"), ("b",), ("d",))


def test_items_without_dependencies_are_one_wave() -> None:
    assert graph.waves("cab", details(a="", b="", c="")) == (("c", "a", "b"),)
    assert graph.waves("", {}) == ()


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
def test_every_dependency_is_in_an_earlier_wave_and_every_item_in_one(pairs: list[tuple[int, int]]) -> None:
    names = [f"i{n:02}" for n in range(12)]
    items = {
        name: item(name, depends_on=tuple({names[low] for low, high in pairs if high == n and low < n}))
        for n, name in enumerate(names)
    }
    waves = graph.waves(names, items)
    number = {i: n for n, wave in enumerate(waves) for i in wave}
    assert sorted(number) == names and sum(map(len, waves)) == len(names)
    assert all(number[d] < number[i] for i in names for d in items[i].depends_on)


def test_a_suggestion_moves_an_item_behind_what_undid_it_and_nothing_else() -> None:
    assert graph.suggested("abcd", {"a": "c"}) == ("b", "c", "a", "d")


def test_suggestions_that_contradict_each_other_leave_the_later_one_out() -> None:
    assert graph.suggested("abc", {"a": "b", "b": "a"}) == ("b", "a", "c")


@given(st.permutations("abcdef"), st.dictionaries(st.sampled_from("abcdef"), st.text("abcdefx", max_size=4)))
def test_suggestions_never_lose_an_item(order: list[str], after: dict[str, str]) -> None:
    assert sorted(graph.suggested(order, after)) == sorted(order)
