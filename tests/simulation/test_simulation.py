"""Random runs of the real core hold every invariant, and each planted bug is found.

SIMULATE_RUNS in the environment: how many; 5,000 where it is not set.
"""

import os
import subprocess
import sys
from dataclasses import fields, replace
from typing import Final

import pytest
from anneal_contracts.facts import Outcome
from anneal_contracts.work import SUBJECT_BY_KIND
from anneal_core import triage
from anneal_core.commands import DIRECT_KINDS
from anneal_core.triage import Response

from tests.simulation.batch import ROOT, play_many, play_side_by_side
from tests.simulation.chance import FAMILIES
from tests.simulation.direct import CALLS
from tests.simulation.doers import HANDLERS
from tests.simulation.rules import Rules, without
from tests.simulation.story import shrink, smallest, told
from tests.simulation.world import Story, play

pytestmark = pytest.mark.simulation

RUNS: Final = int(os.environ.get("SIMULATE_RUNS", "5000"))
FIRST: Final = 1_000_000

# Rule of the shell -> runs within which its absence is found.
FOUND_WITHIN: Final = {
    "sent_after_commit": 1000,
    "markers_are_read": 200,
    "repeated_restore_keeps_its_generation": 2000,
}
# Only a fork is put back before it begins, and the simulation has none.
NOT_SIMULATED: Final = frozenset({"rewind"})


@pytest.mark.timeout(1800)
def test_random_runs_hold_every_invariant_and_visit_everything() -> None:
    done = play_side_by_side(FIRST, RUNS, timeout_s=1700)
    assert done.runs == RUNS
    assert not done.failed, "\n".join([str(done.failed), told(shrink(done.failed[0][0]))])
    kinds = {*SUBJECT_BY_KIND, *DIRECT_KINDS} - NOT_SIMULATED
    expected = {f"command {kind}" for kind in kinds | {"undo"}}
    expected |= {f"run {end}" for end in ("finished", "cancelled", "failed")}
    expected |= {f"item {end}" for end in ("completed", "escalated", "skipped")}
    expected |= {f"attempt {end}" for end in ("kept", "reverted", "unchanged")}
    expected |= {f"{what} {who}" for what in ("dies", "stands still") for who in ("supervisor", "worker", "evaluator")}
    expected |= {f"fault {family}" for family in FAMILIES}
    expected |= {"also takeover", "also group", "also further round", "event gate_failed", "event approval_answered"}
    assert not expected - done.visited.keys()


def test_every_kind_of_command_has_a_doer() -> None:
    assert set(SUBJECT_BY_KIND) == set(HANDLERS)
    assert set(CALLS) == DIRECT_KINDS - NOT_SIMULATED


@pytest.mark.timeout(300)
def test_the_same_seed_gives_the_same_log_in_any_process() -> None:
    here = play_many(FIRST, 60)
    for hash_seed in ("1", "2"):
        code = f"from tests.simulation.batch import play_many; print(play_many({FIRST}, 60).digest)"
        call = [sys.executable, "-c", code]
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        assert there.stdout.strip() == here.digest
    assert play_many(FIRST + 1, 60).digest != here.digest


def first_failure(most: int, rules: Rules | None = None) -> Story:
    for seed in range(FIRST, FIRST + most):
        story = play(seed, rules=rules)
        if story.rule:
            return story
    raise AssertionError(f"no failure in {most} runs")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", FOUND_WITHIN)
def test_a_planted_bug_is_found_and_its_story_is_made_small(rule: str) -> None:
    found = first_failure(FOUND_WITHIN[rule], without(rule))
    small = shrink(found.seed, without(rule))
    assert small.rule == found.rule
    assert len(small.items) <= 2 and len(small.faults) <= min(4, len(found.faults))
    text = told(small)
    assert str(found.seed) in text and all(fault in text for fault in small.faults)
    assert small.lines[-1].endswith(f"{small.rule}: {small.detail}")


@pytest.mark.timeout(300)
def test_a_triage_that_keeps_what_an_erring_evaluator_let_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trusting = replace(
        triage.TABLE[-1], fits=lambda a, e: e is not None and e.outcome is Outcome.ERROR, response=Response.KEEP
    )
    monkeypatch.setattr(triage, "_JUDGED", (*triage._JUDGED, trusting))
    assert first_failure(500).rule == "only what holds is kept"


def test_a_run_without_faults_fails_nothing() -> None:
    for seed in range(FIRST, FIRST + 20):
        story = play(seed, only=())
        assert not story.rule and not story.faults


def test_leaving_a_fault_out_leaves_the_luck_of_the_others_as_it_was() -> None:
    whole = next(s for s in (play(seed) for seed in range(FIRST, FIRST + 50)) if len(s.faults) >= 3)
    again = play(whole.seed, only=whole.faults)
    assert (again.head, again.faults) == (whole.head, whole.faults)
    fewer = play(whole.seed, only=whole.faults[1:])
    assert set(fewer.faults) <= set(whole.faults[1:])


@pytest.mark.parametrize("needed", [set(), {3}, {0, 9}, {2, 3, 7}, set(range(10))])
def test_the_smallest_part_has_nothing_that_can_be_left_out(needed: set[int]) -> None:
    names = [f"f{n}" for n in range(10)]
    wanted = {names[n] for n in needed}
    assert smallest(names, lambda some: wanted <= set(some)) == tuple(n for n in names if n in wanted)


def test_a_rule_that_there_is_not_cannot_be_broken() -> None:
    with pytest.raises(ValueError, match="no rule nothing"):
        without("nothing")
    assert set(FOUND_WITHIN) <= {f.name for f in fields(Rules)}
