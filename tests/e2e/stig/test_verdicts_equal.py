"""On a real machine: one rule's cut-down OVAL says what the full scan says, for every rule, in three states."""

import asyncio
from collections.abc import Mapping

import pytest
from anneal_contracts.facts import FixSource, Outcome
from anneal_skillkit.policy import decide

from tests.support.permits import permit_for

from .conftest import Box

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

# Breaks what a fresh or mended machine has: packages gone, modes wrong, values at their border, platforms away.
SPOIL = r"""
chmod 0666 /etc/issue; chmod 0644 /etc/shadow; chown nobody /etc/group
printf 'PermitRootLogin yes\nClientAliveInterval 601\n' >/etc/ssh/sshd_config.d/00-complianceascode-hardening.conf
sed -i 's/^PASS_MAX_DAYS.*/PASS_MAX_DAYS 61/; s/^PASS_MIN_DAYS.*/PASS_MIN_DAYS 1/' /etc/login.defs
rpm -e --nodeps chrony rsyslog 2>/dev/null || true
rm -f /etc/audit/rules.d/*.rules; systemctl stop cron 2>/dev/null || true
mkdir -p /opt/odd; chown 54321:54321 /opt/odd; echo 'export PATH=.:$PATH' >>/root/.bashrc
"""


async def _compare(box: Box, outcomes: Mapping[str, Outcome]) -> None:
    """Every rule by its own evaluation against the scan's word."""
    limit = asyncio.Semaphore(4)

    async def one(name: str, outcome: Outcome) -> tuple[str, Outcome, Outcome] | None:
        async with limit:
            judged = await box.skill.runtime.evaluator.evaluate(box.ctx, name)
        if judged.outcome is Outcome.FAIL:
            assert judged.evidence, name
            assert len(judged.evidence) < 3000
        return None if judged.outcome is outcome else (name, judged.outcome, outcome)

    compared = await asyncio.gather(*(one(name, outcome) for name, outcome in outcomes.items()))
    assert [different for different in compared if different] == []


async def _mend(box: Box) -> int:
    """The vendor's shell fix for every second failing rule that does not touch our own reach."""
    found = await box.skill.runtime.work_queue.discover(box.ctx, ())
    done = 0
    for item in found.items[::2]:
        for action in await box.skill.runtime.executor.ladder(box.ctx, item):
            if action.source is not FixSource.VENDOR or action.kind != "bash" or action.risks_reach:
                continue
            if item.missing_input or item.id.startswith(("package_", "aide_")) or not decide(action).allowed:
                continue
            await box.skill.runtime.executor.apply(
                box.ctx, action, await permit_for(box.session, f"e2e-mend-{item.id}")
            )
            done += 1
    return done


async def test_every_verdict_equals_the_full_scans_in_three_states(box: Box) -> None:
    fresh = await box.skill.runtime.work_queue.discover(box.ctx, ())
    assert fresh.score.fail == len(fresh.items) > 50
    await _compare(box, fresh.outcomes)

    assert await _mend(box) > 30
    mended = await box.skill.runtime.evaluator.verify(box.ctx)
    assert mended.score.passed > fresh.score.passed + 30
    await _compare(box, mended.outcomes)

    await box.sh(SPOIL)
    spoilt = await box.skill.runtime.evaluator.verify(box.ctx)
    changed = [name for name, outcome in mended.outcomes.items() if spoilt.outcomes[name] is not outcome]
    assert len(changed) > 5
    await _compare(box, spoilt.outcomes)
