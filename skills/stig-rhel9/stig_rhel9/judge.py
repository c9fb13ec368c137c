"""Verdicts: one rule by its cut-down OVAL, all of them by a full scan, and the machine's health."""

import time
from typing import Final

from anneal_contracts.facts import Health, Outcome
from anneal_runtime.errors import FailedPrecondition, TargetUnreachable
from anneal_skillkit.interfaces import Context, FullScan, Judgement, TargetSession
from anneal_skillkit.manifest import Manifest

from stig_rhel9.content import ContentStore
from stig_rhel9.evidence import explain, failing_objects
from stig_rhel9.results import definition_results, parse_oval_results, score, verdict
from stig_rhel9.scan import full_scan, oval_results

NEEDS_REBOOT: Final = "needs_reboot"
_BOOT_TIME_FILES: Final = ("/proc/cmdline",)

# Arguments: mission services. Runs as the login user, so that sudo itself is part of what is looked at.
_HEALTH: Final = r"""
{ sudo -n true || [ "$(id -u)" = 0 ]; } >/dev/null 2>&1 && echo privileged &
if units=$(systemctl list-units --state=failed --plain --no-legend --no-pager 2>/dev/null); then
    [ -z "$units" ] || printf '%s\n' "$units" | while read -r unit _; do printf 'failed\t%s\n' "$unit"; done
else
    printf 'dead\tsystemd\n'  # no answer is not the same as no failed unit
fi
for service; do systemctl is-active --quiet "$service" || printf 'dead\t%s\n' "$service"; done
wait
echo done
"""


class StigEvaluator:
    """The Evaluator of the skill."""

    def __init__(self, manifest: Manifest, store: ContentStore) -> None:
        self._manifest = manifest
        self._store = store

    async def evaluate(self, ctx: Context, item_id: str) -> Judgement:
        """One rule's verdict: about 40 ms where it has OVAL, a scan of that rule (2 to 4 s) where not."""
        content = await self._store.get(ctx.profile, ctx.tailoring)
        rule = content.rule(item_id)
        limit = self._manifest.timeouts.evaluate
        if rule.check is None:
            scan = await full_scan(ctx.session, content, rules=[rule.full_id], timeout_s=limit)
            return Judgement(outcome=scan.outcomes.get(rule.id, Outcome.OTHER))
        data = await oval_results(ctx.session, content.oval(rule.id), timeout_s=limit)
        root = parse_oval_results(data)
        outcome = verdict(rule.check, definition_results(root))
        if outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE):
            return Judgement(outcome=outcome)
        looked_at = failing_objects(root, rule.check)
        waits = bool(looked_at) and all(any(f in words for f in _BOOT_TIME_FILES) for words in looked_at)
        mode = NEEDS_REBOOT if waits and outcome is Outcome.FAIL else ""
        return Judgement(outcome=outcome, evidence=explain(root, rule.check), mode=mode)

    async def health(self, ctx: Context, canary: TargetSession) -> Health:
        """Health through a session opened just now: sudo, failed units, mission services. One exec.

        Where systemd does not answer, `systemd` is among the dead services.
        """
        began = time.monotonic()
        services = ctx.mission_services
        try:
            done = await canary.run(["sh", "-c", _HEALTH, "health", *services], sudo=False, timeout_s=15.0)
        except TargetUnreachable as e:
            return Health(reachable=False, detail=e.message, took_s=time.monotonic() - began)
        lines = [line.split("\t") for line in done.stdout.decode("utf-8", "replace").splitlines()]
        if ["done"] not in lines:
            words = done.stderr.decode("utf-8", "replace").strip()[-200:]
            detail = f"the health probe ended with {done.exit_code}: {words or 'too late'}"
            return Health(reachable=True, detail=detail, dead_services=services, took_s=time.monotonic() - began)
        return Health(
            reachable=True,
            privileged=["privileged"] in lines,
            failed_units=tuple(sorted(line[1] for line in lines if line[0] == "failed")),
            dead_services=tuple(sorted(line[1] for line in lines if line[0] == "dead")),
            took_s=time.monotonic() - began,
        )

    async def verify(self, ctx: Context) -> FullScan:
        """The final word: a full scan."""
        content = await self._store.get(ctx.profile, ctx.tailoring)
        scan = await full_scan(ctx.session, content, timeout_s=self._manifest.timeouts.verify)
        if missing := content.rules.keys() - scan.outcomes.keys():
            raise FailedPrecondition(f"the scan is silent on {len(missing)} rules, {min(missing)} among them")
        return FullScan(score=score(scan.outcomes.values()), outcomes=scan.outcomes, artifacts={"arf_after": scan.arf})
