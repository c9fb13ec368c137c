"""The loop as a whole, against a pretend world."""

import dataclasses
from typing import Any

import pytest
from anneal_contracts.facts import Health, Mutability, Outcome
from anneal_contracts.work import Applied, Failed, Released
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.machine import IllegalEvent
from anneal_core.state import Phase, RunState
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.world import World, candidate, item


def fold(log: list[chain.Event]) -> RunState:
    state = RunState()
    for event in log:
        state = evolve(state, event)
    return state


def test_a_run_fixes_what_passes_and_ends_with_a_full_scan() -> None:
    world = World(items=[item("a", priority=2), item("b", priority=1)])
    world.create()
    state = world.run()
    assert state.phase is Phase.FINISHED
    assert [i.state for i in state.items.values()] == ["completed", "completed"]
    assert state.order == ("b", "a")
    assert state.generation == 2
    assert state.fixed() == 2
    assert world.sent.index("verify") > max(i for i, k in enumerate(world.sent) if k == "snapshot")
    assert world.sent[-1] == "release"


def test_the_fold_of_the_log_is_the_state_and_the_chain_holds() -> None:
    world = World(items=[item("a"), item("b")], verdicts={("a", 1): Outcome.FAIL})
    world.create()
    state = world.run()
    assert fold(world.log) == state
    assert chain.verify(world.log).ok


def test_deciding_again_over_the_log_issues_the_same_commands() -> None:
    world = World(items=[item("a"), item("b")], verdicts={("a", 1): Outcome.FAIL}, exits={("a", 1): 1})
    world.create()
    world.run()
    state = RunState()
    for event in world.log:
        if event.actor == "engine":
            expected = [p.model_dump(mode="json") for p in decide(state, event.at)]
            assert event.payload in expected
        state = evolve(state, event)


def test_one_flipped_byte_is_found_at_its_event() -> None:
    world = World(items=[item("a")])
    world.create()
    world.run()
    payload = {**world.log[4].payload, "kind": "restore"}
    world.log[4] = world.log[4].model_copy(update={"payload": payload})
    found = chain.verify(world.log)
    assert not found.ok and found.first_bad == 5


def test_a_missing_event_is_found() -> None:
    world = World(items=[item("a")])
    world.create()
    world.run()
    del world.log[3]
    assert chain.verify(world.log).first_bad == 4


def test_a_health_failure_is_taken_back_by_force_and_the_next_rung_is_tried() -> None:
    world = World(
        items=[item("a")],
        ladders={"a": [candidate("a", 0), candidate("a", 1)]},
        worse={("a", 1): "a new session cannot be opened"},
    )
    world.create()
    state = world.run()
    first, second = state.items["a"].attempts
    assert (first.mode, first.ending) == ("health_failure", "reverted")
    assert second.ending == "kept"
    assert state.items["a"].rung == "curated"
    restore = next(e for e in world.log if e.type == "command_issued" and e.payload["kind"] == "restore")
    assert restore.payload["force"] is True


@pytest.mark.parametrize(
    ("outcome", "exit_code", "mode", "state"),
    [
        (Outcome.PASS, 0, "", "completed"),
        (Outcome.PASS, 1, "false_negative", "completed"),
        (Outcome.FAIL, 1, "clean_failure", "escalated"),
        (Outcome.FAIL, 0, "evaluator_gap", "escalated"),
        (Outcome.ERROR, 0, "evaluator_gap", "escalated"),
    ],
)
def test_triage_names_the_mode(outcome: Outcome, exit_code: int, mode: str, state: str) -> None:
    world = World(items=[item("a")], verdicts={("a", 1): outcome}, exits={("a", 1): exit_code})
    world.create()
    ended = world.run()
    assert ended.items["a"].attempts[0].mode == mode
    assert ended.items["a"].state == state


def test_missing_input_escalates_without_touching_the_target() -> None:
    world = World(items=[item("a", missing_input="a file system of its own for /var")])
    world.create()
    state = world.run()
    assert "missing_input" in state.items["a"].reason
    assert "apply" not in world.sent


def test_an_interrupted_action_is_restored_and_applied_again_in_the_same_attempt() -> None:
    world = World(items=[item("a")], applied={("a", 1): Applied(command_id="x", state="interrupted")})
    world.create()

    def heal(state: RunState, pending: object) -> None:
        if world.sent.count("restore"):
            world.applied = {}

    world.override = heal
    state = world.run()
    assert world.sent.count("apply") == 2
    assert len(state.items["a"].attempts) == 1
    assert state.items["a"].state == "completed"


def test_a_retryable_failure_is_tried_again_and_the_third_ends_the_attempt() -> None:
    failing = {"left": 2}

    def flaky(state: RunState, pending: object) -> Failed | None:
        if pending.kind == "evaluate" and failing["left"]:  # type: ignore[attr-defined]
            failing["left"] -= 1
            return Failed(command_id=pending.command_id, reason="unavailable", message="down", retryable=True)  # type: ignore[attr-defined]
        return None

    world = World(items=[item("a")], override=flaky)
    world.create()
    assert world.run().items["a"].state == "completed"
    failing["left"] = 3
    world = World(items=[item("a")], override=flaky)
    world.create()
    assert world.run().items["a"].attempts[0].mode == "health_failure"


def test_a_command_without_result_expires_and_is_given_out_again() -> None:
    world = World(items=[item("a")])
    world.create()
    for payload in decide(world.state, world.now):
        world.append(payload)
    assert decide(world.state, world.now) == ()
    world.now += 1000
    (expired,) = decide(world.state, world.now)
    assert isinstance(expired, ev.CommandExpired)
    assert world.run().phase is Phase.FINISHED


def test_a_target_that_is_leased_fails_the_run_with_the_reason() -> None:
    def leased(state: RunState, pending: object) -> Failed:
        return Failed(command_id=pending.command_id, reason="leased", message="held by run-0")  # type: ignore[attr-defined]

    world = World(items=[item("a")], override=leased)
    world.create()
    state = world.run()
    assert state.phase is Phase.FAILED and "held by run-0" in state.reason


def test_cancelling_skips_the_rest_and_still_scans_and_releases() -> None:
    world = World(items=[item("a"), item("b")])
    world.create()
    while not world.state.items or world.state.items["a"].state != "completed":
        for payload in decide(world.state, world.now):
            world.append(payload)
        if world.state.pending:
            world.answer_one()
    world.append(ev.CancelRequested(reason="lunch"), actor="person")
    state = world.run()
    assert state.phase is Phase.CANCELLED
    assert state.items["b"].state == "skipped" and "lunch" in state.items["b"].reason
    assert {"verify", "release"} <= set(world.sent)


def test_steps_and_time_are_hard_limits() -> None:
    items = [item(f"i{n}") for n in range(9)]
    world = World(items=items)
    world.create(limits=ev.Limits(max_steps=10))
    state = world.run()
    assert state.steps <= 10
    assert any("max" in i.reason or "cap of 10 steps" in i.reason for i in state.items.values())
    world = World(items=items)
    world.create(limits=ev.Limits(time_budget_s=1.0))
    assert any("time budget" in i.reason for i in world.run().items.values())


def test_a_dry_run_plans_and_touches_nothing() -> None:
    world = World(items=[item("a")])
    world.create(dry_run=True)
    state = world.run()
    assert set(world.sent) == {"acquire", "discover", "plan", "release"}
    assert state.items["a"].ladder


def test_a_regression_is_mended_in_a_second_round() -> None:
    broken = item("c")
    world = World(items=[item("a")], passing=("c",), after={"c": Outcome.FAIL}, regressed=(broken,))
    world.create()
    state = world.run()
    assert state.items["c"].state == "completed"
    assert state.regressions() == ()
    assert world.sent.count("verify") == 2


def newly(*ids: str, items: tuple[str, ...] = ("a",)) -> World:
    """A world in which the work on items makes these rules apply, which fail then."""
    return World(
        items=[item(i) for i in items],
        inapplicable=ids,
        after=dict.fromkeys(ids, Outcome.FAIL),
        became_applicable=tuple(item(i, priority=-n) for n, i in enumerate(ids)),
    )


def test_rules_that_became_applicable_and_fail_are_mended_in_a_second_round_and_are_no_regressions() -> None:
    world = newly("c", "d")
    world.create(limits=ev.Limits(repair_rounds=2))
    state = world.run()
    assert state.order == ("a", "d", "c")
    assert {i.state for i in state.items.values()} == {"completed"}
    assert state.regressions() == ()
    assert state.became_applicable() == {"c": Outcome.PASS, "d": Outcome.PASS}
    assert state.fixed() == 1
    assert world.sent.count("verify") == 2
    assert fold(world.log) == state


def test_a_rule_that_became_applicable_and_cannot_be_mended_is_told_with_its_reason() -> None:
    world = newly("c")
    world.verdicts = {("c", 1): Outcome.FAIL}
    world.create()
    state = world.run()
    assert state.phase is Phase.FINISHED
    assert state.items["c"].state == "escalated" and state.items["c"].reason
    assert state.became_applicable() == {"c": Outcome.FAIL}
    assert state.regressions() == ()


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({"item_ids": ("a",)}, ()),
        ({"item_ids": ("a", "c")}, ("c",)),
        ({"exclusions": {"c": "accepted risk"}}, ("d",)),
        ({"limit": 1}, ()),
        ({"limit": 2}, ("d",)),
    ],
)
def test_of_what_became_applicable_only_what_was_asked_for_is_taken(
    spec: dict[str, Any], taken: tuple[str, ...]
) -> None:
    world = newly("c", "d")
    world.create(**spec)
    state = world.run()
    assert state.order == ("a", *taken)
    assert set(state.became_applicable()) == {"c", "d"}
    assert world.sent.count("verify") == (2 if taken else 1)


def test_without_snapshots_only_a_fix_that_can_be_taken_back_runs() -> None:
    ladders = {"a": [candidate("a", 0)], "b": [candidate("b", 0, undo_blob="u")]}
    world = World(items=[item("a"), item("b")], ladders=ladders, can_snapshot=False, verdicts={("b", 1): Outcome.FAIL})
    world.create()
    state = world.run()
    assert "no snapshots" in state.items["a"].reason
    assert state.items["b"].attempts[0].ending == "reverted"
    assert "undo" in world.sent and "snapshot" not in world.sent and "restore" not in world.sent


@pytest.mark.parametrize(
    "changes",
    [{"allowed": False, "policy": "no"}, {"mutability": Mutability.FORBIDDEN}, {"banned": "failed in run-0"}],
)
def test_what_may_not_run_never_runs(changes: dict[str, object]) -> None:
    world = World(items=[item("a")], ladders={"a": [candidate("a", 0, **changes)]})
    world.create()
    state = world.run()
    assert "apply" not in world.sent
    assert state.items["a"].state == "escalated"


def test_a_model_that_may_author_is_asked_a_bounded_number_of_times() -> None:
    made = [None, candidate("a", 5, source="model"), None]
    world = World(
        items=[item("a")], ladders={"a": []}, model_may="author", proposals=made, verdicts={("a", 1): Outcome.FAIL}
    )
    world.create()
    state = world.run()
    assert world.sent.count("propose") == 3
    assert world.sent.count("apply") == 1
    assert state.items["a"].state == "escalated"


def test_a_proposal_that_policy_refuses_never_runs() -> None:
    bad = candidate("a", 5, source="model", allowed=False, policy="disables sshd")
    world = World(items=[item("a")], ladders={"a": []}, model_may="author", proposals=[bad, bad, bad])
    world.create()
    state = world.run()
    assert "apply" not in world.sent
    assert "disables sshd" in state.items["a"].reason


def test_reflections_are_bounded_and_never_hold_the_run() -> None:
    items = [item(f"i{n}") for n in range(6)]
    verdicts = {(f"i{n}", 1): Outcome.FAIL for n in range(6)}
    world = World(items=items, verdicts=verdicts)
    world.create(limits=ev.Limits(max_reflections=2))
    state = world.run()
    assert world.sent.count("reflect") == 2
    assert sum(i.reflection is not None for i in state.items.values()) == 2


def test_a_unit_that_fails_since_a_boot_is_noted_and_not_blamed_on_the_next_item() -> None:
    sick = Health(reachable=True, privileged=True, failed_units=("x.service",))
    world = World(items=[item("a"), item("b")], worse={("a", 1): "bad"})

    def after_boot(state: RunState, pending: object) -> object:
        if pending.kind == "check_health":  # type: ignore[attr-defined]
            from anneal_contracts.work import HealthChecked

            return HealthChecked(command_id=pending.command_id, health=sick)  # type: ignore[attr-defined]
        return None

    world.override = after_boot  # type: ignore[assignment]
    world.create()
    state = world.run()
    assert any("x.service" in n for n in state.notes)
    assert state.health is not None and "x.service" in state.health.failed_units


def test_an_event_that_does_not_fit_is_refused_and_leaves_the_state() -> None:
    world = World(items=[item("a")])
    world.create()
    before = dataclasses.replace(world.state)
    with pytest.raises(IllegalEvent):
        world.append(ev.CommandFinished(command_id="nobody", result=Released(command_id="nobody")))
    with pytest.raises(IllegalEvent):
        world.append(ev.CommandIssued(command_id="c", kind="apply", deadline=0.0))
    assert world.state == before


@settings(max_examples=60, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(list(Outcome)), min_size=12, max_size=12),
    exits=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    worse=st.lists(st.booleans(), min_size=12, max_size=12),
    states=st.lists(st.sampled_from(["applied", "error", "unreachable"]), min_size=12, max_size=12),
)
def test_whatever_happens_a_run_ends_and_every_item_has_a_reason(
    outcomes: list[Outcome], exits: list[int], worse: list[bool], states: list[str]
) -> None:
    keys = [(f"i{n}", a) for n in range(4) for a in (1, 2, 3)]
    world = World(
        items=[item(f"i{n}") for n in range(4)],
        ladders={f"i{n}": [candidate(f"i{n}", k) for k in range(4)] for n in range(4)},
        verdicts=dict(zip(keys, outcomes, strict=True)),
        exits=dict(zip(keys, exits, strict=True)),
        worse={k: "worse" for k, w in zip(keys, worse, strict=True) if w},
        applied={k: Applied(command_id="x", state=s, exit_code=e) for k, s, e in zip(keys, states, exits, strict=True)},
    )
    world.create()
    state = world.run()
    assert state.phase is Phase.FINISHED
    assert all(i.state in ("completed", "escalated") and i.reason for i in state.items.values())
    assert all(len(i.attempts) <= 3 for i in state.items.values())
    kept = sum(a.ending == "kept" for i in state.items.values() for a in i.attempts)
    assert state.generation == kept
    assert fold(world.log) == state


def test_a_script_that_cannot_take_its_change_back_ends_the_run() -> None:
    def broken(state: RunState, pending: object) -> Applied | None:
        if pending.kind == "undo":  # type: ignore[attr-defined]
            return Applied(command_id=pending.command_id, state="applied", exit_code=4)  # type: ignore[attr-defined]
        return None

    world = World(
        items=[item("a"), item("b")],
        ladders={"a": [candidate("a", 0, undo_blob="u")], "b": [candidate("b", 0, undo_blob="u")]},
        can_snapshot=False,
        verdicts={("a", 1): Outcome.FAIL},
        override=broken,
    )
    world.create()
    state = world.run()
    assert state.phase is Phase.FAILED
    assert "a could not be taken back" in state.reason
    assert state.items["b"].attempts == ()


def test_a_model_that_repeats_itself_uses_up_its_turns() -> None:
    same = candidate("a", 5, source="model")
    world = World(
        items=[item("a")],
        ladders={"a": []},
        model_may="author",
        proposals=[same, same, same, same, same],
        verdicts={("a", 1): Outcome.FAIL},
    )
    world.create()
    state = world.run()
    assert world.sent.count("propose") == 3
    assert world.sent.count("apply") == 1
    assert "2 model turns led to nothing" in state.items["a"].reason


def test_turns_after_a_failed_vendor_fix_are_told_in_the_reason() -> None:
    world = World(items=[item("a")], model_may="author", proposals=[None, None], verdicts={("a", 1): Outcome.FAIL})
    world.create()
    reason = world.run().items["a"].reason
    assert "1 of 3 attempts failed" in reason
    assert "contract_violation" in reason


def test_the_last_scan_is_of_a_machine_that_was_restarted() -> None:
    world = World(items=[item("a")])
    world.create()
    world.run()
    assert world.sent[-5:] == ["restore", "check_health", "verify", "record", "release"]
    world = World(items=[item("a")], can_snapshot=False, ladders={"a": [candidate("a", 0, undo_blob="u")]})
    world.create()
    world.run()
    assert "restore" not in world.sent


def test_a_run_is_not_lost_when_its_regressions_cannot_be_planned() -> None:
    def no_second_plan(state: RunState, pending: object) -> Failed | None:
        if pending.kind == "plan" and state.round > 0:  # type: ignore[attr-defined]
            return Failed(command_id=pending.command_id, reason="invalid_argument", message="broken")  # type: ignore[attr-defined]
        return None

    world = World(
        items=[item("a")],
        passing=("c",),
        after={"c": Outcome.FAIL},
        regressed=(item("c"),),
        override=no_second_plan,
    )
    world.create()
    state = world.run()
    assert state.phase is Phase.FINISHED
    assert state.items["c"].state == "escalated"
    assert any("broken" in n for n in state.notes)


@pytest.mark.parametrize("can_snapshot", [True, False])
def test_an_action_that_is_always_cut_off_is_given_up(can_snapshot: bool) -> None:
    ladders = {"a": [candidate("a", 0, undo_blob="u"), candidate("a", 1, undo_blob="u")]}
    cut_off = {("a", n): Applied(command_id="x", state="interrupted") for n in (1, 2)}

    def undo_works(state: RunState, pending: object) -> Applied | None:
        if pending.kind == "undo":  # type: ignore[attr-defined]
            return Applied(command_id=pending.command_id, state="applied")  # type: ignore[attr-defined]
        return None

    world = World(items=[item("a")], ladders=ladders, applied=cut_off, can_snapshot=can_snapshot, override=undo_works)
    world.create()
    state = world.run(most=200)
    assert [a.mode for a in state.items["a"].attempts] == ["apply_error", "apply_error"]
    assert world.sent.count("apply") == (4 if can_snapshot else 2)


def test_a_snapshot_that_is_given_out_again_is_the_same_command() -> None:
    world = World(items=[item("a")])
    world.create()
    ids: list[str] = []
    while len(ids) < 2:
        for payload in decide(world.state, world.now):
            world.append(payload)
            if isinstance(payload, ev.CommandIssued) and payload.kind == "snapshot":
                ids.append(payload.command_id)
        if world.state.pending and next(iter(world.state.pending.values())).kind == "snapshot":
            world.now += 1000
        elif world.state.pending:
            world.answer_one()
    assert ids[0] == ids[1]
