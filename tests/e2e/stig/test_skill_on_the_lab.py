"""The skill on a real machine: discovery, fixes of every rung, markers, health, and errors that say what is wrong."""

import asyncio
import re
from pathlib import Path

import pytest
from anneal_contracts.facts import (
    Action,
    FixSource,
    ItemDetail,
    Outcome,
)
from anneal_runtime.errors import FailedPrecondition
from anneal_skillkit.effects import Finished, read_markers, run_effect
from anneal_skillkit.policy import decide

from tests.support.permits import permit_for

from .conftest import SKILL, Box

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


async def test_items_are_failing_rules_with_reasons_where_nothing_can_be_done(box: Box) -> None:
    found = await box.skill.runtime.work_queue.discover(box.ctx, ())
    by_id = {item.id: item for item in found.items}
    assert all(found.outcomes[name] is Outcome.FAIL for name in by_id)
    # Ids that hold "pass" are judged like any other.
    assert [name for name in by_id if "pass" in name]
    assert "file system of its own" in by_id["partition_for_var_log_audit"].missing_input
    assert by_id["banner_etc_issue"].missing_input == ""
    reasons = {
        "package_subscription-manager_installed": "no enabled repository offers subscription-manager",
        "service_auditd_enabled": "auditd.service cannot run in this machine",
        "sudo_remove_nopasswd": "would lose sudo",
        "configure_crypto_policy": "crypto-policies-scripts",
        "ensure_redhat_gpgkey_installed": "signing key",
    }
    assert [name for name, words in reasons.items() if words not in by_id[name].missing_input] == []
    assert [name for name in by_id if name.startswith("audit_rules_") and by_id[name].missing_input] == []
    assert by_id["package_aide_installed"].missing_input == ""
    assert [i for i in found.items if "read-only" in i.missing_input or "no kernel parameter" in i.missing_input]
    assert all(item.description and item.title and item.references for item in found.items)
    assert found.artifacts["arf_before"][:2] == b"\x1f\x8b"
    again = await box.skill.runtime.work_queue.discover(box.ctx, ["banner_etc_issue", "service_sshd_enabled"])
    assert again.fingerprint == found.fingerprint
    assert [item.id for item in again.items] == ["banner_etc_issue"]


async def test_fixes_are_resolved_as_openscap_resolves_them(box: Box, tmp_path: Path) -> None:
    from stig_rhel9.content import ContentStore

    content = await ContentStore(box.skill.manifest, SKILL, tmp_path).get("stig", b"")
    script = "oscap xccdf generate fix --skip-valid --profile stig --fix-type bash " + str(content.datastream)
    told = (await box.session.run(["sh", "-c", script], timeout_s=120, limit=1 << 25)).stdout.decode()
    parts = re.split(r"^# BEGIN fix \(\d+ / \d+\) for '(\S+)'$", told, flags=re.M)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    compared = 0
    for name in content.rules:
        rule = content.rule(name)
        if "bash" not in rule.fixes:
            continue
        assert rule.fixes["bash"].text.strip() in texts[rule.full_id], name
        compared += 1
    assert compared > 400


async def test_a_vendor_fix_makes_its_rule_hold(box: Box) -> None:
    (item,) = await box.skill.runtime.work_queue.describe(box.ctx, ["banner_etc_issue"])
    before = await box.skill.runtime.evaluator.evaluate(box.ctx, item.id)
    assert before.outcome is Outcome.FAIL
    assert "/etc/issue" in before.evidence
    action, *_ = await box.skill.runtime.executor.ladder(box.ctx, item)
    assert (action.source, action.kind) == (FixSource.VENDOR, "bash")
    done = await box.skill.runtime.executor.apply(box.ctx, action, await permit_for(box.session, "e2e-vendor-banner"))
    assert done.exit_code == 0
    after = await box.skill.runtime.evaluator.evaluate(box.ctx, item.id)
    assert (after.outcome, after.evidence) == (Outcome.PASS, "")
    ran = await box.session.read("/var/lib/anneal/effects/e2e-vendor-banner/script")
    assert ran.decode() == action.content


async def test_an_ansible_fix_makes_its_rule_hold_under_the_same_markers(box: Box) -> None:
    rule = "coredump_disable_storage"
    (item,) = await box.skill.runtime.work_queue.describe(box.ctx, [rule])
    await box.sh("sed -i '/^Storage/d' /etc/systemd/coredump.conf 2>/dev/null || touch /etc/systemd/coredump.conf")
    ladder = await box.skill.runtime.executor.ladder(box.ctx, item)
    action = next(a for a in ladder if a.kind == "ansible")
    done = await box.skill.runtime.executor.apply(box.ctx, action, await permit_for(box.session, "e2e-ansible-core"))
    assert done.exit_code == 0, done.stdout.decode()
    assert (await box.skill.runtime.evaluator.evaluate(box.ctx, rule)).outcome is Outcome.PASS
    markers = await read_markers(box.session, "e2e-ansible-core")
    assert isinstance(markers, Finished)
    assert (
        await box.skill.runtime.executor.apply(box.ctx, action, await permit_for(box.session, "e2e-ansible-core"))
        == done
    )


async def test_a_fix_that_restarts_sshd_is_seen_to_its_end(box: Box) -> None:
    restart = b"systemctl restart ssh 2>/dev/null || systemctl restart sshd"
    script = restart + b"\npkill -f 'sshd: .*@notty' || true\nsleep 1\necho end"
    done = await run_effect(box.session, await permit_for(box.session, "e2e-restart-sshd"), script, timeout_s=20)
    assert (done.exit_code, done.stdout) == (0, b"end\n")


async def test_health_tells_a_failed_unit_a_dead_service_and_lost_sudo(box: Box) -> None:
    canary = await box.session.fresh()
    before = await box.skill.runtime.evaluator.health(box.ctx, canary)
    assert before.reachable
    assert before.privileged
    await box.sh(
        "systemd-run --unit=doomed --collect=no false 2>/dev/null || systemd-run --unit=doomed false; sleep 0.3"
    )
    try:
        after = await box.skill.runtime.evaluator.health(box.ctx, canary)
        assert set(after.failed_units) - set(before.failed_units) == {"doomed.service"}
    finally:
        await box.sh("systemctl reset-failed doomed.service || true")
        await canary.close()


async def test_a_full_disk_is_an_error_that_says_so(box: Box) -> None:
    await box.sh("mount -t tmpfs -o size=16k tmpfs /var/lib/anneal/effects")
    try:
        with pytest.raises(FailedPrecondition, match=r"disk full|cannot"):
            await run_effect(
                box.session, await permit_for(box.session, "e2e-full-disk"), b"true #" + b"x" * 100_000, timeout_s=5
            )
        assert await box.sh("ls -A /var/lib/anneal/effects") == ""
    finally:
        await box.sh("umount /var/lib/anneal/effects")


async def test_an_action_of_the_model_runs_like_any_other(box: Box) -> None:
    action = Action(source=FixSource.MODEL, kind="bash", title="t", content="echo model; exit 4\n")
    done = await box.skill.runtime.executor.apply(box.ctx, action, await permit_for(box.session, "e2e-model-action"))
    assert (done.exit_code, done.stdout) == (4, b"model\n")


async def test_a_target_without_oscap_is_told_apart_from_a_failing_rule(box: Box) -> None:
    where = (await box.sh("command -v oscap")).strip()
    await box.sh(f"mv {where} {where}.away")
    try:
        with pytest.raises(FailedPrecondition, match="oscap"):
            await box.skill.runtime.evaluator.evaluate(box.ctx, "banner_etc_issue")
        with pytest.raises(FailedPrecondition, match="openscap-scanner"):
            await asyncio.wait_for(box.skill.runtime.evaluator.verify(box.ctx), 60)
    finally:
        await box.sh(f"mv {where}.away {where}")


async def test_the_gate_lets_every_fix_of_the_content_and_of_the_skill_pass(box: Box, tmp_path: Path) -> None:
    from stig_rhel9.content import ContentStore

    content = await ContentStore(box.skill.manifest, SKILL, tmp_path).get("stig", b"")
    seen: list[Action] = []
    for name in content.rules:
        seen += await box.skill.runtime.executor.ladder(box.ctx, ItemDetail(id=name, title=name))
    refused = [f"{a.title}: {d.explanation}" for a in seen if not (d := decide(a, source=a.source)).allowed]
    assert refused == []
    kinds = {(a.source, a.kind) for a in seen}
    assert {(FixSource.VENDOR, "bash"), (FixSource.VENDOR, "ansible"), (FixSource.CURATED, "bash")} <= kinds
    assert len(seen) > 800
