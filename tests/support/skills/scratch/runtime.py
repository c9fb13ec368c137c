"""The scratch skill: one file with one line an item. Real scripts on a real target, and verdicts in milliseconds."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from anneal_contracts.facts import (
    Action,
    DeclaredMode,
    DeferredItemOutcome,
    FixSource,
    Health,
    ItemDetail,
    Mutability,
    Outcome,
    ScoreCounts,
)
from anneal_runtime.errors import NotFound
from anneal_skillkit.deferral import judged_again
from anneal_skillkit.effects import run_effect
from anneal_skillkit.interfaces import Context, Discovery, Emit, ExecResult, FullScan, Judgement, Permit, TargetSession
from anneal_skillkit.loader import SkillSpec

_HEALTH = """
if sudo -n true 2>/dev/null; then echo privileged; fi
if units=$(systemctl list-units --state=failed --plain --no-legend --no-pager); then
    printf '%s' "$units" | cut -d' ' -f1 | sed 's/^/failed /'
else
    echo "dead systemd"
fi
for s; do systemctl is-active --quiet "$s" || echo "dead $s"; done
"""


class Scratch:
    """All five interfaces in one class; it is small enough."""

    def __init__(self, folder: Path, modes: Sequence[DeclaredMode]) -> None:
        self._modes = modes
        self._profiles: dict[str, list[dict[str, Any]]] = yaml.safe_load((folder / "items.yaml").read_text())
        self.work_queue = self
        self.executor = self
        self.evaluator = self
        self.checkpoint = self

    def _items(self, profile: str) -> list[dict[str, Any]]:
        return self._profiles[profile]

    def _item(self, profile: str, item_id: str) -> dict[str, Any]:
        return next(i for i in self._items(profile) if i["id"] == item_id)

    async def check(self, *, profile: str, item_ids: Sequence[str], tailoring: bytes) -> Sequence[tuple[str, str]]:
        if profile not in self._profiles:
            return [("profile", f"no profile {profile!r}")]
        known = {i["id"] for i in self._items(profile)}
        return [("item_ids", f"no item {i!r}") for i in item_ids if i not in known]

    async def describe(self, ctx: Context, item_ids: Sequence[str]) -> Sequence[ItemDetail]:
        return [self._detail(n, i) for n, i in enumerate(self._items(ctx.profile)) if i["id"] in item_ids]

    def _detail(self, n: int, i: dict[str, Any]) -> ItemDetail:
        return ItemDetail(
            id=i["id"],
            title=f"The file {i['id']} holds its line",
            category="files",
            severity="medium",
            priority=i.get("priority", n),
            missing_input=i.get("missing_input", ""),
            depends_on=tuple(i.get("depends_on", ())),
            resources=tuple(i.get("resources", ())),
        )

    async def discover(self, ctx: Context, item_ids: Sequence[str]) -> Discovery:
        scan = await self.verify(ctx)
        failing = [i for i, o in scan.outcomes.items() if o is Outcome.FAIL and (not item_ids or i in item_ids)]
        fingerprint = hashlib.sha256(f"scratch {ctx.profile}".encode()).hexdigest()
        items = tuple(await self.describe(ctx, failing))
        return Discovery(items=items, score=scan.score, outcomes=scan.outcomes, fingerprint=fingerprint)

    async def verify(self, ctx: Context) -> FullScan:
        outcomes = {i["id"]: (await self.evaluate(ctx, i["id"])).outcome for i in self._items(ctx.profile)}
        found = Counter(outcomes.values())
        score = ScoreCounts(
            passed=found[Outcome.PASS], fail=found[Outcome.FAIL], notapplicable=found[Outcome.NOT_APPLICABLE]
        )
        return FullScan(score=score, outcomes=outcomes)

    async def evaluate(self, ctx: Context, item_id: str) -> Judgement:
        needs = next(i.get("applies_with") for i in self._items(ctx.profile) if i["id"] == item_id)
        if needs and not await _line(ctx, needs):
            return Judgement(outcome=Outcome.NOT_APPLICABLE, evidence=f"there is no {needs}")
        held = await _line(ctx, item_id)
        outcome = Outcome.PASS if held == item_id else Outcome.FAIL
        mode = "" if outcome is Outcome.PASS else self._item(ctx.profile, item_id).get("mode", "")
        return Judgement(outcome=outcome, evidence=f"wanted {item_id!r}, found {held!r}", mode=mode)

    async def health(self, ctx: Context, canary: TargetSession) -> Health:
        done = await canary.run(["sh", "-c", _HEALTH, "health", *ctx.mission_services], sudo=False, timeout_s=10)
        lines = [line.split(" ", 1) for line in done.stdout.decode().splitlines()]
        return Health(
            reachable=True,
            privileged=["privileged"] in lines,
            failed_units=tuple(sorted(v[1] for v in lines if v[0] == "failed")),
            dead_services=tuple(sorted(v[1] for v in lines if v[0] == "dead")),
        )

    async def ladder(self, ctx: Context, item: ItemDetail) -> Sequence[Action]:
        found = self._item(ctx.profile, item.id)
        return [
            Action(
                source=FixSource.VENDOR if n == 0 else FixSource.CURATED,
                kind="bash",
                title=f"script {n + 1} of {item.id}",
                content=script + "\n",
                undo=found.get("undo"),
                mutability=Mutability(found.get("mutability", "reversible")),
                timeout_s=20,
            )
            for n, script in enumerate(found["scripts"])
        ]

    async def apply(self, ctx: Context, action: Action, permit: Permit) -> ExecResult:
        return await run_effect(ctx.session, permit, action.content.encode(), timeout_s=action.timeout_s)

    def volatile_paths(self) -> Sequence[str]:
        return ()

    def modes(self) -> Sequence[DeclaredMode]:
        return self._modes

    async def resolve_deferred(
        self, ctx: Context, reason: str, items: Sequence[ItemDetail], emit: Emit
    ) -> Sequence[DeferredItemOutcome]:
        return await judged_again(self.evaluator, ctx, reason, items, emit)

    async def baseline(self, ctx: Context) -> str:
        raise NotFound("the scratch skill has no peer", field="skill")

    async def export(self, fmt: str, run: Mapping[str, object], artifacts: Mapping[str, bytes]) -> tuple[bytes, str]:
        raise NotFound(f"no format {fmt!r}", field="format")


async def _line(ctx: Context, item_id: str) -> str:
    """What the item's file holds; empty where it is missing."""
    try:
        return (await ctx.session.read(f"/etc/scratch/{item_id}")).decode().strip()
    except NotFound:
        return ""


def build(spec: SkillSpec) -> Scratch:
    """The skill."""
    return Scratch(spec.folder, spec.manifest.modes)
