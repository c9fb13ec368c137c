"""On a real machine: one rule's cut-down OVAL says what the full scan says, for every rule, in three states."""

import statistics
import time
from collections.abc import Mapping

import pytest
from anneal_contracts.work import FixSource, Outcome
from anneal_skillkit.policy import decide

from .conftest import Box

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

# Breaks what a fresh or mended machine has: packages gone, modes wrong, values at their border, platforms away.
SPOIL = r"""
chmod 0666 /etc/issue; chmod 0644 /etc/shadow; chown nobody /etc/group
printf 'PermitRootLogin yes\nClientAliveInterval 601\n' >/etc/ssh/sshd_config.d/00-complianceascode-hardening.conf
sed -i 's/^PASS_MAX_DAYS.*/PASS_MAX_DAYS 61/; s/^PASS_MIN_DAYS.*/PASS_MIN_DAYS 1/' /etc/login.defs
rpm -e --nodeps chrony sudo 2>/dev/null || true
rm -f /etc/audit/rules.d/*.rules; systemctl stop cron 2>/dev/null || true
mkdir -p /opt/odd; chown 54321:54321 /opt/odd; echo 'export PATH=.:$PATH' >>/root/.bashrc
"""


async def _compare(box: Box, outcomes: Mapping[str, Outcome]) -> list[float]:
    """Every rule by its own evaluation against the scan; gives seconds of those that apply."""
    different, took = [], []
    for name, outcome in outcomes.items():
        began = time.monotonic()
        judged = await box.skill.runtime.evaluator.evaluate(box.ctx, name)
        if outcome in (Outcome.PASS, Outcome.FAIL):
            took.append(time.monotonic() - began)
        if judged.outcome is not outcome:
            different.append((name, judged.outcome, outcome))
        if judged.outcome is Outcome.FAIL:
            assert judged.evidence
            assert len(judged.evidence) < 3000
    assert different == []
    return took


async def _mend(box: Box) -> int:
    """The vendor's shell fix for every failing rule that does not touch our own reach."""
    found = await box.skill.runtime.work_queue.discover(box.ctx, ())
    done = 0
    for item in found.items:
        for action in await box.skill.runtime.executor.ladder(box.ctx, item):
            if action.source is not FixSource.VENDOR or action.kind != "bash" or action.risks_reach:
                continue
            if item.missing_input or item.id.startswith(("package_", "aide_")) or not decide(action).allowed:
                continue
            await box.skill.runtime.executor.apply(box.ctx, action, f"e2e-mend-{item.id}")
            done += 1
    return done


async def test_every_verdict_equals_the_full_scans_in_three_states(box: Box) -> None:
    fresh = await box.skill.runtime.work_queue.discover(box.ctx, ())
    assert fresh.score.fail == len(fresh.items) > 50
    took = await _compare(box, fresh.outcomes)

    assert await _mend(box) > 50
    mended = await box.skill.runtime.evaluator.verify(box.ctx)
    assert mended.score.passed > fresh.score.passed + 50
    took += await _compare(box, mended.outcomes)

    await box.sh(SPOIL)
    spoilt = await box.skill.runtime.evaluator.verify(box.ctx)
    changed = [name for name, outcome in mended.outcomes.items() if spoilt.outcomes[name] is not outcome]
    assert len(changed) > 5
    took += await _compare(box, spoilt.outcomes)

    # The goal (60 ms and 150 ms) is the benchmark's, on a quiet machine; here only that nothing is out of scale.
    assert statistics.median(took) < 0.5
