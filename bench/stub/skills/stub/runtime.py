"""The stub skill: items of four kinds, judged by a table. No program runs anywhere.

Of 20 items 16 are fixed by their first script (kept-), 2 by their second (second-), one by a script of the model's
(model-), and one by nothing: its script fails and the model asks for a person (given-up-).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from anneal_contracts.facts import (
    Action,
    DeclaredMode,
    DeferredItemOutcome,
    FixSource,
    Health,
    ItemDetail,
    Outcome,
    ScoreCounts,
)
from anneal_runtime.errors import NotFound
from anneal_skillkit.deferral import judged_again
from anneal_skillkit.interfaces import Context, Discovery, Emit, ExecResult, FullScan, Judgement, Permit, TargetSession
from anneal_skillkit.loader import SkillSpec

SIZES = {"few": 20, "many": 400}
SCRIPTS = {"kept": 1, "second": 2, "model": 0, "given-up": 1}
# As long as the texts of a real rule are on average.
_WORDS = "The operating system must be set up so that this holds, also after a restart and for every user. " * 6
_SCRIPT = """#!/bin/bash
# Rung {rung} of {item}.
set -euo pipefail
mkdir -p /etc/stub.d
for file in /etc/stub.d/*.conf; do
    [ -e "$file" ] || continue
    if LC_ALL=C grep -q -m 1 -i -e '^\\s*Option\\s' "$file"; then
        sed -i --follow-symlinks 's/^\\s*Option\\s.*/# &/' "$file"
    fi
done
if ! grep -qs '^Option {item}$' '/etc/stub.d/{item}.conf'; then
    printf 'Option %s\\n' '{item}' >> '/etc/stub.d/{item}.conf'
fi
chmod 0644 '/etc/stub.d/{item}.conf'
{filler}"""
_FILLER = "# What this setting is for stands here at some length, as it does in scripts that people wrote.\n" * 8


def kind(n: int) -> str:
    """What becomes of the n-th item."""
    return {16: "second", 17: "second", 18: "model", 19: "given-up"}.get(n % 20, "kept")


class Stub:
    """All five interfaces in one class."""

    def __init__(self) -> None:
        self._looked: Counter[tuple[str, str]] = Counter()
        self.work_queue = self
        self.executor = self
        self.evaluator = self
        self.checkpoint = self

    async def check(self, *, profile: str, item_ids: Sequence[str], tailoring: bytes) -> Sequence[tuple[str, str]]:
        return []

    async def describe(self, ctx: Context, item_ids: Sequence[str]) -> Sequence[ItemDetail]:
        return [item for item in self._items(ctx.profile) if item.id in item_ids]

    def _items(self, profile: str) -> list[ItemDetail]:
        return [
            ItemDetail(
                id=f"{kind(n)}-{n:03}",
                title=f"Setting number {n} is in place",
                category="settings",
                severity="medium",
                priority=n,
                description=_WORDS,
                rationale=_WORDS,
                fix_text=_WORDS,
                check_text=_WORDS,
                references={"cce": [f"CCE-{n:05}"], "stigid": [f"STUB-{n:06}"], "cci": ["CCI-000366", "CCI-001199"]},
            )
            for n in range(SIZES[profile])
        ]

    async def discover(self, ctx: Context, item_ids: Sequence[str]) -> Discovery:
        items = tuple(self._items(ctx.profile))
        outcomes = {item.id: Outcome.FAIL for item in items}
        fingerprint = hashlib.sha256(ctx.run_id.encode()).hexdigest()
        return Discovery(items=items, score=ScoreCounts(fail=len(items)), outcomes=outcomes, fingerprint=fingerprint)

    async def verify(self, ctx: Context) -> FullScan:
        bad = {item.id for item in self._items(ctx.profile) if item.id.startswith("given-up")}
        outcomes = {i.id: Outcome.FAIL if i.id in bad else Outcome.PASS for i in self._items(ctx.profile)}
        return FullScan(score=ScoreCounts(passed=len(outcomes) - len(bad), fail=len(bad)), outcomes=outcomes)

    async def evaluate(self, ctx: Context, item_id: str) -> Judgement:
        self._looked[ctx.run_id, item_id] += 1
        first = self._looked[ctx.run_id, item_id] == 1
        bad = item_id.startswith("given-up") or (item_id.startswith("second") and first)
        evidence = "Expected: Option in /etc/stub.d. Found: nothing that matches in 3 files. " * 4
        return Judgement(outcome=Outcome.FAIL if bad else Outcome.PASS, evidence=evidence if bad else "")

    async def health(self, ctx: Context, canary: TargetSession) -> Health:
        return Health(reachable=True, privileged=True, failed_units=("auditd.service",))

    async def ladder(self, ctx: Context, item: ItemDetail) -> Sequence[Action]:
        return [
            Action(
                source=FixSource.VENDOR if rung == 1 else FixSource.CURATED,
                kind="bash",
                title=f"script {rung} of {item.id}",
                content=_SCRIPT.format(rung=rung, item=item.id, filler=_FILLER),
                timeout_s=20,
            )
            for rung in range(1, SCRIPTS[item.id.rpartition("-")[0]] + 1)
        ]

    async def apply(self, ctx: Context, action: Action, permit: Permit) -> ExecResult:
        return ExecResult(exit_code=0, stdout=b"Remediating: one setting was put in place.\n", stderr=b"")

    def volatile_paths(self) -> Sequence[str]:
        return ()

    def modes(self) -> Sequence[DeclaredMode]:
        return ()

    async def resolve_deferred(
        self, ctx: Context, reason: str, items: Sequence[ItemDetail], emit: Emit
    ) -> Sequence[DeferredItemOutcome]:
        return await judged_again(self.evaluator, ctx, reason, items, emit)

    async def baseline(self, ctx: Context) -> str:
        raise NotFound("the stub skill has no peer", field="skill")

    async def export(self, fmt: str, run: Mapping[str, object], artifacts: Mapping[str, bytes]) -> tuple[bytes, str]:
        raise NotFound(f"no format {fmt!r}", field="format")


def build(spec: SkillSpec) -> Stub:
    """The skill."""
    return Stub()
