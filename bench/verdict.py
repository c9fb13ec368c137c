"""One rule's verdict, SSH included, where the rule has OVAL; and stock oscap on the same machine."""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anneal_contracts.facts import Outcome
from anneal_skillkit.interfaces import Context
from anneal_skillkit.loader import Skill, load_skill
from anneal_skillkit.ssh import connect

from bench.figures import BenchError, Figure, Peer, Scale, spread
from bench.host import ROOT
from bench.machines import Machine, machine

if TYPE_CHECKING:
    from stig_rhel9.content import Content

SKILL: Final = ROOT / "skills" / "stig-rhel9"
GOAL: Final = {"p50": 0.060, "p90": 0.150}
_SETTLED: Final = {Outcome.PASS: 0, Outcome.FAIL: 2}  # how `oscap xccdf eval` ends


def run(scale: Scale) -> Sequence[Figure]:
    """Boots a machine, asks for every verdict by itself, and a sample of them from stock oscap."""
    with machine() as box, tempfile.TemporaryDirectory(prefix="anneal-bench-") as cache:
        return asyncio.run(_measured(box, Path(cache), scale))


async def _measured(box: Machine, cache: Path, scale: Scale) -> Sequence[Figure]:
    skill = load_skill(SKILL, cache=cache)
    session = await connect(box.access())
    try:
        ctx = Context(run_id="bench", profile="stig", tailoring=b"", session=session, cache=cache)
        scale.say("full scan, to know what each verdict must be (6 s)")
        found = await skill.runtime.work_queue.discover(ctx, ())
        content = await _content(skill, cache)
        rules = _with_oval(content, found.outcomes)
        sample = spread(rules, scale.count(20, 2))
        rules = rules if not scale.quick else sorted({*spread(rules, 20), *sample})
        scale.say(f"{len(rules)} verdicts, one by one (30 s)")
        ours = await _ours(skill, ctx, rules, found.outcomes)
        scale.say(f"stock oscap on {len(sample)} of these rules (90 s)")
        stock = await _stock(ctx, content, sample, found.outcomes)
    finally:
        await session.close()
    what = "oscap xccdf eval --profile P --rule R, over the same open connection, on an even sample of the same rules"
    peer = Peer(what=what, values=stock)
    same = tuple(ours[rule] for rule in sample)
    return [
        Figure(name="verdict_s", unit="s", values=tuple(ours.values()), goal=GOAL, peer=peer),
        Figure(name="verdict_sample_s", unit="s", values=same, peer=peer),
    ]


async def _content(skill: Skill, cache: Path) -> "Content":
    # Importable once the skill is loaded.
    from stig_rhel9.content import ContentStore

    return await ContentStore(skill.manifest, skill.folder, cache).get("stig", b"")


def _with_oval(content: "Content", outcomes: Mapping[str, Outcome]) -> list[str]:
    """The rules that apply here and have OVAL, by id."""
    return sorted(rule for rule, outcome in outcomes.items() if outcome in _SETTLED and content.oval(rule))


async def _ours(skill: Skill, ctx: Context, rules: Sequence[str], outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """Seconds by rule. Raises BenchError for a verdict that is not the full scan's: speed is no use then."""
    await skill.runtime.evaluator.evaluate(ctx, rules[0])
    took: dict[str, float] = {}
    for rule in rules:
        began = time.monotonic()
        judged = await skill.runtime.evaluator.evaluate(ctx, rule)
        took[rule] = time.monotonic() - began
        if judged.outcome is not outcomes[rule]:
            raise BenchError(f"{rule}: the verdict is {judged.outcome}, the full scan says {outcomes[rule]}")
    return took


async def _stock(
    ctx: Context, content: "Content", rules: Sequence[str], outcomes: Mapping[str, Outcome]
) -> tuple[float, ...]:
    """Seconds of the tool as its manual has it: no results file, which would take longer still."""
    took = []
    for rule in rules:
        words = ["--profile", content.profile, "--rule", content.rule(rule).full_id, str(content.datastream)]
        began = time.monotonic()
        done = await ctx.session.run(["oscap", "xccdf", "eval", *words], timeout_s=120.0)
        took.append(time.monotonic() - began)
        if done.exit_code != _SETTLED[outcomes[rule]]:
            raise BenchError(f"stock oscap ended with {done.exit_code} on {rule}: {done.stderr[-300:].decode()}")
    return tuple(took)
