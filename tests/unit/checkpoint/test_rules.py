import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from anneal_checkpoint.effects import NEXT, advance, same_change
from anneal_checkpoint.leases import check_holder, next_token
from anneal_checkpoint.model import DriverKind, Effect, EffectState, Lease, Snapshot, SnapshotState
from anneal_checkpoint.orders import snapshot_name
from anneal_checkpoint.retention import recyclable, superfluous_after_run, superfluous_in_run
from anneal_runtime.errors import FailedPrecondition, Leased, StaleToken
from hypothesis import given
from hypothesis import strategies as st

HELD = Lease(target="lab", run_id="run-1", token=7, expires_at=datetime.now(UTC), live=True)
EFFECT = Effect(
    key="e", target="lab", run_id="run-1", item_id="i", attempt=1, action_hash="h", fencing_token=7, exit_code=0
)


def test_a_new_holder_gets_a_higher_token() -> None:
    assert next_token(replace(HELD, run_id="", live=False), "run-2") == 8
    assert next_token(replace(HELD, live=False), "run-2") == 8


def test_the_last_holder_keeps_its_token_as_long_as_nobody_came_in_between() -> None:
    assert next_token(HELD, "run-1") == 7
    assert next_token(replace(HELD, live=False), "run-1") == 7


def test_a_held_target_is_refused_to_others() -> None:
    with pytest.raises(Leased, match="run-1"):
        next_token(HELD, "run-2")


@pytest.mark.parametrize(
    ("lease", "run_id", "token"),
    [(HELD, "run-2", 7), (HELD, "run-1", 6), (HELD, "run-1", 8), (replace(HELD, live=False), "run-1", 7)],
)
def test_only_the_holder_with_its_token_in_its_time_passes(lease: Lease, run_id: str, token: int) -> None:
    check_holder(HELD, "run-1", 7)
    with pytest.raises(StaleToken):
        check_holder(lease, run_id, token)


def test_an_effect_that_was_taken_back_is_history() -> None:
    reverted = advance(replace(EFFECT, state=EffectState.APPLIED, exit_code=3), EffectState.REVERTED, 0)
    # What the script said stays on record.
    assert (reverted.state, reverted.exit_code) == (EffectState.REVERTED, 3)
    for state in set(EffectState) - {EffectState.REVERTED}:
        with pytest.raises(FailedPrecondition):
            advance(reverted, state, 3)
    assert advance(reverted, EffectState.REVERTED, 0) == reverted


def test_an_effect_does_not_come_to_two_ends() -> None:
    applied = advance(EFFECT, EffectState.APPLIED, 0)
    assert advance(applied, EffectState.APPLIED, 0) == applied
    with pytest.raises(FailedPrecondition):
        advance(applied, EffectState.APPLIED, 1)
    with pytest.raises(FailedPrecondition):
        advance(applied, EffectState.STARTED)


@pytest.mark.parametrize("before", EffectState)
@pytest.mark.parametrize("after", EffectState)
def test_only_the_steps_of_the_table_are_taken(before: EffectState, after: EffectState) -> None:
    effect = replace(EFFECT, state=before)
    if after in NEXT[before]:
        assert advance(effect, after).state is after
    elif after is before:
        assert advance(effect, after) == effect
    else:
        with pytest.raises(FailedPrecondition, match=f"is {before}"):
            advance(effect, after)


def test_the_readme_has_the_table_of_the_code() -> None:
    readme = Path(__file__).parents[3] / "services" / "checkpoint" / "README.md"
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) ?\|$", readme.read_text(encoding="utf-8"), re.M)
    told = {state: set(re.findall(r"`(\w+)`", after)) for state, after in rows if state in set(EffectState)}
    assert told == {state: set(after) for state, after in NEXT.items()}


@given(st.lists(st.tuples(st.sampled_from(EffectState), st.integers(0, 3)), max_size=8))
def test_no_order_of_reports_leads_back_to_where_it_may_happen_again(reports: list[tuple[EffectState, int]]) -> None:
    rank = {EffectState.INTENDED: 0, EffectState.STARTED: 1, EffectState.REVERTED: 3}
    effect = EFFECT
    for state, exit_code in reports:
        try:
            after = advance(effect, state, exit_code)
        except FailedPrecondition:
            continue
        assert after == effect or after.state in NEXT[effect.state]
        # Applied and unknown may change places: what nobody knew can be found out.
        assert rank.get(after.state, 2) >= rank.get(effect.state, 2)
        effect = after


def test_another_action_is_another_change_and_another_token_is_not() -> None:
    assert same_change(EFFECT, replace(EFFECT, fencing_token=9, state=EffectState.APPLIED))
    assert not same_change(EFFECT, replace(EFFECT, action_hash="other"))
    assert not same_change(EFFECT, replace(EFFECT, target="other"))
    assert not same_change(EFFECT, replace(EFFECT, undoes="other"))


def states(*generations: int, run_id: str = "r", state: SnapshotState = SnapshotState.KEPT) -> list[Snapshot]:
    return [
        Snapshot(
            name=f"{run_id}-{g}",
            target="lab",
            driver=DriverKind.NSPAWN,
            machine="m",
            run_id=run_id,
            generation=g,
            state=state,
        )
        for g in generations
    ]


def test_during_a_run_the_first_and_the_last_states_are_kept() -> None:
    assert superfluous_in_run(states(0, 1, 2, 3), 3, 0) == []
    assert superfluous_in_run(states(0, 1, 2, 3, 4, 5), 3, 0) == ["r-2", "r-1"]


@given(st.integers(0, 30), st.integers(0, 200), st.integers(1, 5), st.integers(0, 9))
def test_trimming_keeps_the_first_and_the_last_and_milestones_spread_between_them(
    first: int, more: int, keep: int, milestones: int
) -> None:
    kept = [first]
    for generation in range(first + 1, first + more + 1):
        dropped = set(superfluous_in_run(states(*kept, generation), keep, milestones))
        kept = [g for g in (*kept, generation) if f"r-{g}" not in dropped]
    newest = first + more
    assert kept[0] == first and set(range(max(first, newest - keep + 1), newest + 1)) <= set(kept)
    between = [g for g in kept[1:] if g <= newest - keep]
    assert len(between) <= milestones
    # A moment of the run is never further from one that is kept than twice the even spread.
    gaps = [b - a for a, b in pairwise(kept)]
    assert not milestones or max(gaps, default=0) <= 2 * newest / milestones + 1


def test_after_a_run_the_last_two_runs_can_still_be_undone_and_forked() -> None:
    newest_first = [
        *states(5, 0, run_id="c"),
        *states(2, run_id="b", state=SnapshotState.TAKING),
        *states(0, run_id="b", state=SnapshotState.TAKING),
        *states(0, run_id="a"),
        *states(0, run_id="z"),
    ]
    # b never had a whole state, so a is the second run that can be undone.
    assert superfluous_after_run(newest_first, 2) == ["b-2", "b-0", "z-0"]


def test_names_of_states_are_short_and_differ_by_run() -> None:
    one, two = snapshot_name("run-2026-11-22-a", 3), snapshot_name("run-2026-11-22-b", 3)
    assert one != two
    assert one.endswith("-3")
    assert len(snapshot_name("r" * 100, 10**6)) <= 64


def test_a_new_state_is_made_only_of_one_that_was_whole() -> None:
    (new,) = states(9)
    never, whole = states(1, 2, state=SnapshotState.DROPPING)
    whole = replace(whole, taken_at=datetime.now(UTC))
    assert recyclable([never, whole], new) == whole.name
    assert recyclable([never], new) == ""
    assert recyclable([replace(whole, machine="other")], new) == ""
