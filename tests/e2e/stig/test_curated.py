"""Every fix of our own on one machine: it mends its failing case, leaves its passing case, and hurts nothing else."""

import time
from pathlib import Path

import pytest
from anneal_contracts.facts import (
    Action,
    FixSource,
    Health,
    Outcome,
)
from anneal_skillkit.effects import run_effect
from anneal_skillkit.policy import decide

from tests.support.permits import permit_for

from .conftest import SKILL, Box

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

CASES = sorted(path.name for path in (SKILL / "fixes").iterdir() if path.is_dir())


async def _health(box: Box) -> Health:
    canary = await box.session.fresh()
    try:
        return await box.skill.runtime.evaluator.health(box.ctx, canary)
    finally:
        await canary.close()


async def _curated(box: Box, rule: str) -> Action:
    (item,) = await box.skill.runtime.work_queue.describe(box.ctx, [rule])
    ladder = await box.skill.runtime.executor.ladder(box.ctx, item)
    return next(action for action in ladder if action.source is FixSource.CURATED)


@pytest.mark.parametrize("rule", CASES)
async def test_a_curated_fix_mends_its_failing_case_and_leaves_its_passing_case(box: Box, rule: str) -> None:
    action = await _curated(box, rule)
    assert decide(action).allowed

    async def judge() -> tuple[Outcome, str]:
        judged = await box.skill.runtime.evaluator.evaluate(box.ctx, rule)
        return judged.outcome, judged.evidence

    before = await _health(box)
    for case, start in (("failing.sh", Outcome.FAIL), ("passing.sh", Outcome.PASS)):
        await box.sh((SKILL / "cases" / rule / case).read_text())
        outcome, evidence = await judge()
        assert outcome is start, f"{case}: {evidence}"
        for turn in (1, 2):
            key = f"e2e-{rule}-{case[:-3]}-{turn}-{time.time_ns()}"
            done = await box.skill.runtime.executor.apply(box.ctx, action, await permit_for(box.session, key))
            assert done.exit_code == 0, f"{case}, time {turn}: {done.stdout.decode()}"
        outcome, evidence = await judge()
        assert outcome is Outcome.PASS, f"{case}: {evidence}"
    after = await _health(box)
    assert after.privileged
    assert set(after.failed_units) <= set(before.failed_units)


@pytest.mark.parametrize("rule", [rule for rule in CASES if (SKILL / "fixes" / rule / "undo.sh").is_file()])
async def test_an_undo_takes_its_fix_back(box: Box, rule: str) -> None:
    action = await _curated(box, rule)
    assert action.undo is not None
    await box.sh((SKILL / "cases" / rule / "failing.sh").read_text())
    await box.skill.runtime.executor.apply(
        box.ctx, action, await permit_for(box.session, f"e2e-{rule}-{time.time_ns()}")
    )
    done = await run_effect(
        box.session, await permit_for(box.session, f"e2e-undo-{time.time_ns()}"), action.undo.encode(), timeout_s=30
    )
    assert done.exit_code == 0, done.stdout.decode()
    assert (await box.skill.runtime.evaluator.evaluate(box.ctx, rule)).outcome is Outcome.FAIL


def test_every_curated_fix_has_both_its_cases() -> None:
    missing = [
        f"{rule}/{case}"
        for rule in CASES
        for case in ("failing.sh", "passing.sh")
        if not Path(SKILL / "cases" / rule / case).is_file()
    ]
    assert missing == []
