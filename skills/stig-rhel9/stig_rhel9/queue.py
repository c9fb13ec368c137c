"""Finding the work: the specification's check, and the first full scan with its items."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from anneal_contracts.facts import ItemDetail, Outcome
from anneal_runtime.errors import InvalidArgument
from anneal_skillkit.interfaces import Context, Discovery
from anneal_skillkit.manifest import Manifest

from stig_rhel9.content import Content, ContentStore, Rule
from stig_rhel9.facts import Facts, Questions, probe
from stig_rhel9.fixability import Fixability, Needs
from stig_rhel9.results import score
from stig_rhel9.scan import ScanResult, full_scan

_SEVERITY_ORDER: Final = {"high": 0, "medium": 10, "low": 20, "unknown": 30}
_DISRUPTION_ORDER: Final = {"low": 0, "medium": 3, "high": 6}
_TEXT_LIMIT: Final = 6000


class StigQueue:
    """The WorkQueue of the skill."""

    def __init__(self, manifest: Manifest, store: ContentStore) -> None:
        self._manifest = manifest
        self._store = store
        self._needs = Needs(manifest.settings)

    async def check(self, *, profile: str, item_ids: Sequence[str], tailoring: bytes) -> Sequence[tuple[str, str]]:
        """What is wrong with a run's specification, by field: profile, tailoring, item_ids."""
        try:
            content = await self._store.get(profile, tailoring)
        except InvalidArgument as e:
            return [(e.field or "profile", e.message)]
        return [
            ("item_ids", f"the profile {content.profile} selects no rule {item!r}")
            for item in item_ids
            if content.normal(item) not in content.rules
        ]

    async def discover(self, ctx: Context, item_ids: Sequence[str]) -> Discovery:
        """A full scan; items are the failing rules (those of item_ids only, when given)."""
        content = await self._store.get(ctx.profile, ctx.tailoring)
        wanted = {content.normal(item) for item in item_ids}
        scan, facts = await self._look(ctx, content, wanted or content.rules.keys())
        failing = [name for name, outcome in scan.outcomes.items() if outcome is Outcome.FAIL]
        failing = [name for name in failing if name in content.rules and (not wanted or name in wanted)]
        rules = [content.rule(name) for name in failing]
        items = [self.item(rule, self._reason(content, rule, facts, scan.false_tests)) for rule in rules]
        return Discovery(
            items=tuple(sorted(items, key=lambda item: (item.priority, item.id))),
            score=score(scan.outcomes.values()),
            outcomes=scan.outcomes,
            fingerprint=facts.fingerprint(content),
            artifacts={"arf_before": scan.arf},
            notes=_notes(content, facts, scan.outcomes, wanted),
        )

    async def _look(self, ctx: Context, content: Content, names: Collection[str]) -> tuple[ScanResult, Facts]:
        """The scan, and beside it what these rules turn on: a scan leaves half of a small machine idle."""
        scan, facts = await asyncio.gather(
            full_scan(ctx.session, content, timeout_s=self._manifest.timeouts.discover),
            self._facts(ctx, content, names),
            return_exceptions=True,
        )
        if isinstance(scan, BaseException):
            raise scan
        if isinstance(facts, BaseException):
            raise facts
        return scan, facts

    async def _facts(self, ctx: Context, content: Content, names: Collection[str]) -> Facts:
        return await probe(ctx.session, await asyncio.to_thread(self._questions, content, names))

    def _questions(self, content: Content, names: Collection[str]) -> Questions:
        """Kernel parameters and packages that the rules ask for."""
        sysctls, packages = set[str](), set[str]()
        for rule in (content.rule(name) for name in names if name in content.rules):
            packages.update(self._needs.packages(rule.id))
            if rule.check is not None:
                # One tree at a time: all of them together are 40 MB that a service would keep.
                one = Fixability(content.oval(rule.id), rule.check)
                sysctls.update(one.sysctls().values())
                packages.update(one.packages().values())
        return Questions(sysctls=frozenset(sysctls), packages=frozenset(packages))

    def _reason(self, content: Content, rule: Rule, facts: Facts, false_tests: Collection[str]) -> str:
        """Why no fix can mend the rule on this target; empty: one might."""
        known = self._needs.reason(rule.id, facts)
        if known or rule.check is None:
            return known
        return Fixability(content.oval(rule.id), rule.check).blocked(facts, false_tests)

    async def describe(self, ctx: Context, item_ids: Sequence[str]) -> Sequence[ItemDetail]:
        """These rules as items, whatever their state."""
        content = await self._store.get(ctx.profile, ctx.tailoring)
        return [self.item(content.rule(name), "") for name in item_ids]

    def item(self, rule: Rule, missing_input: str) -> ItemDetail:
        """A rule as an item of a run."""
        fix = rule.fixes.get("bash") or rule.fixes.get("ansible")
        place = _SEVERITY_ORDER[rule.severity] + _DISRUPTION_ORDER.get(fix.disruption if fix else "high", 3)
        warnings = "".join(f"\n\nWarning: {words}" for words in rule.warnings)
        return ItemDetail(
            id=rule.id,
            title=rule.title,
            category=rule.category,
            severity=rule.severity,
            priority=1000 * self._manifest.rank(rule.id) + place + (1 if fix and fix.reboot else 0),
            description=(rule.description + warnings)[:_TEXT_LIMIT],
            rationale=rule.rationale[:_TEXT_LIMIT],
            # This content has no prose of its own on mending: its script says what to do.
            fix_text=fix.text[:_TEXT_LIMIT] if fix else "",
            check_text=rule.check_text[:_TEXT_LIMIT],
            references={family: list(ids) for family, ids in rule.references.items()},
            missing_input=missing_input,
        )


def _notes(content: Content, facts: Facts, outcomes: dict[str, Outcome], wanted: set[str]) -> tuple[str, ...]:
    notes = [
        f"{content.profile_title}, content {content.version}, sha256 {content.sha256[:12]}; "
        f"target {facts.os_id} {facts.os_version} {facts.arch}, {facts.virtualization}"
    ]
    errors = sorted(name for name, outcome in outcomes.items() if outcome is Outcome.ERROR)
    if errors:
        notes.append(f"{len(errors)} rules could not be evaluated: {', '.join(errors[:10])}")
    for name in sorted(wanted):
        outcome = outcomes.get(name)
        if outcome is not Outcome.FAIL:
            notes.append(f"{name} needs no work at the start: {outcome.value if outcome else 'not evaluated'}")
    return tuple(notes)
