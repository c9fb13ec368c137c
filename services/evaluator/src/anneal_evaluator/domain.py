"""Verdicts: what the evaluator does with each command. Knows no gRPC and no NATS."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence

from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal_contracts.canonical import canonical_json
from anneal_contracts.facts import DeferredItemOutcome, Health, ItemDetail, Outcome
from anneal_contracts.work import (
    CheckGate,
    CheckHealth,
    DeferredResolved,
    Discover,
    Discovered,
    Evaluate,
    Evaluated,
    EvaluateGroup,
    GroupEvaluated,
    HealthChecked,
    LookAgain,
    LookedAgain,
    ResolveDeferred,
    Result,
    Verified,
    Verify,
)
from anneal_runtime.errors import AnnealError, FailedPrecondition, Internal, TargetUnreachable
from anneal_runtime.faults import declare, faultpoint
from anneal_skillkit.bench import Handler, Workbench
from anneal_skillkit.effects import disarm
from anneal_skillkit.interfaces import Context, Judgement

from anneal_evaluator.probing import Probes

log = logging.getLogger(__name__)

AFTER_LOOK = declare("evaluator.after_look")
AFTER_PROGRESS = declare("evaluator.after_progress")


def worse(before: Health, now: Health) -> tuple[str, ...]:
    """What got worse, in words. A fault that was there before is not held against anybody."""
    if not now.reachable:
        return (f"a new session cannot be opened: {now.detail}" if now.detail else "a new session cannot be opened",)
    found = []
    if before.privileged and not now.privileged:
        found.append("sudo no longer works")
    found += [f"unit {u} is newly failed" for u in sorted(set(now.failed_units) - set(before.failed_units))]
    found += [f"service {s} no longer answers" for s in sorted(set(now.dead_services) - set(before.dead_services))]
    return tuple(found)


class Evaluations:
    """One method a command."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def handlers(self) -> Mapping[str, Handler]:
        """Command kind -> method."""
        return {
            "discover": self.discover,
            "evaluate": self.evaluate,
            "evaluate_group": self.evaluate_group,
            "gate": self.evaluate_group,
            "look_again": self.look_again,
            "resolve_deferred": self.resolve_deferred,
            "verify": self.verify,
            "check_health": self.check_health,
            "probe": Probes(self._bench).probe,
        }

    async def discover(self, command: Discover) -> Result:
        """A full first look: items, score, fingerprint, health."""
        ctx = await self._bench.context(command)
        skill = self._bench.skill(command.skill)
        found = await skill.runtime.work_queue.discover(ctx, command.item_ids)
        return Discovered(
            command_id=command.command_id,
            items=found.items,
            score=found.score,
            outcomes=dict(found.outcomes),
            fingerprint=found.fingerprint,
            health=await self._health(command.skill, ctx),
            artifacts=await self._keep(found.artifacts),
            notes=found.notes,
        )

    async def evaluate(self, command: Evaluate) -> Result:
        """Reach, health and verdict, looked at side by side. A machine that got worse has no verdict."""
        found = await self._look(command, (command.item_id,))
        return found[command.item_id]

    async def evaluate_group(self, command: EvaluateGroup | CheckGate) -> Result:
        """One look at the machine, and a verdict for each item of a group, or of what a gate looks at."""
        return GroupEvaluated(command_id=command.command_id, items=await self._look(command, command.item_ids))

    async def look_again(self, command: LookAgain) -> Result:
        """Which rules that did not apply before apply by now and fail; they are described in full."""
        ctx = await self._bench.context(command)
        judged = await self._verdicts(command.skill, command.item_ids, ctx)
        failing = [i for i, (found, _) in judged.items() if found.outcome in (Outcome.FAIL, Outcome.ERROR)]
        queue = self._bench.skill(command.skill).runtime.work_queue
        items = tuple(await queue.describe(ctx, failing)) if failing else ()
        return LookedAgain(command_id=command.command_id, items=items)

    async def resolve_deferred(self, command: ResolveDeferred) -> Result:
        """The skill's last word on deferred items. What was told before a crash is not asked for again."""
        ctx = await self._bench.context(command)
        skill = self._bench.skill(command.skill)
        settled = await self._tell(command, "", None)
        items = [i for i in command.items if i.id not in settled]

        async def emit(text: str, outcome: DeferredItemOutcome | None) -> None:
            await self._tell(command, text, outcome)

        outcomes = await skill.runtime.resolve_deferred(ctx, command.mode, items, emit) if items else ()
        if sorted(o.item_id for o in outcomes) != sorted(i.id for i in items):
            raise Internal(f"the skill {command.skill} gave {len(outcomes)} outcomes for {len(items)} deferred items")
        return DeferredResolved(command_id=command.command_id, outcomes=tuple(outcomes))

    async def _tell(self, command: ResolveDeferred, text: str, outcome: DeferredItemOutcome | None) -> frozenset[str]:
        """Tells the supervisor how far it is; the items that are settled. Raises where nobody waits any more."""
        request = sup.ReportProgressRequest(
            idempotency_key=f"{command.command_id}/{outcome.item_id if outcome else text}",
            run_id=command.run_id,
            command_id=command.command_id,
            text=text,
            outcome_json=canonical_json(outcome) if outcome else b"",
        )
        answer = await self._bench.supervisor.ReportProgress(request)
        await faultpoint(AFTER_PROGRESS)
        if not answer.accepted:
            raise FailedPrecondition("the run no longer waits for this command")
        return frozenset(answer.settled)

    async def _look(
        self, command: Evaluate | EvaluateGroup | CheckGate, item_ids: Sequence[str]
    ) -> dict[str, Evaluated]:
        """What is found of each item: the verdicts beside one look at reach and health, which outranks them."""
        found = await self._look_once(command, item_ids, known=True)
        if all(e.health.reachable for e in found.values()) or not await self._bench.moved(command):
            return found
        return await self._look_once(command, item_ids, known=False)

    async def _look_once(
        self, command: Evaluate | EvaluateGroup | CheckGate, item_ids: Sequence[str], *, known: bool
    ) -> dict[str, Evaluated]:
        """known: where the target was last found is taken for granted."""
        try:
            ctx = await self._bench.context(command, known=known)
        except TargetUnreachable as e:
            return dict.fromkeys(item_ids, self._lost(command, str(e)))
        judging = asyncio.ensure_future(self._verdicts(command.skill, item_ids, ctx))
        try:
            health, undone = await self._reach(command.skill, ctx, getattr(command, "guarded", ""))
            if got_worse := (*worse(command.health_before, health), *undone):
                found = Evaluated(
                    command_id=command.command_id,
                    outcome=Outcome.OTHER,
                    health=health,
                    worse=got_worse,
                    evidence=health.detail,
                )
                return dict.fromkeys(item_ids, found)
            judged = await self._judged(command, item_ids, judging)
        except TargetUnreachable as e:
            return dict.fromkeys(item_ids, self._lost(command, str(e)))
        finally:
            judging.cancel()
            await asyncio.gather(judging, return_exceptions=True)
        return {
            item_id: Evaluated(
                command_id=command.command_id,
                outcome=judgement.outcome,
                health=health,
                evidence=judgement.evidence,
                skill_mode=judgement.mode,
                parts={"health": health.took_s, "verdict": took_s},
            )
            for item_id, (judgement, took_s) in judged.items()
        }

    async def _judged(
        self,
        command: Evaluate | EvaluateGroup | CheckGate,
        item_ids: Sequence[str],
        judging: Awaitable[dict[str, tuple[Judgement, float]]],
    ) -> dict[str, tuple[Judgement, float]]:
        """The verdicts. A new session works: where the old one was lost, they are asked for by another."""
        try:
            return await judging
        except TargetUnreachable:
            await self._bench.drop_session(command.target)
            ctx = await self._bench.context(command, known=True)
            return await self._verdicts(command.skill, item_ids, ctx)

    async def _verdicts(self, skill: str, item_ids: Sequence[str], ctx: Context) -> dict[str, tuple[Judgement, float]]:
        """The skill's word on each item and the seconds it took, one after the other."""
        found = {}
        for item_id in item_ids:
            started = time.monotonic()
            judged = await self._bench.skill(skill).runtime.evaluator.evaluate(ctx, item_id)
            found[item_id] = (judged, round(time.monotonic() - started, 6))
        return found

    def _lost(self, command: Evaluate | EvaluateGroup | CheckGate, detail: str) -> Evaluated:
        health = Health(reachable=False, detail=detail)
        return Evaluated(
            command_id=command.command_id,
            outcome=Outcome.OTHER,
            health=health,
            worse=worse(command.health_before, health),
            evidence=detail,
        )

    async def verify(self, command: Verify) -> Result:
        """The full re-scan; rules that fail by the run's own doing are described in full, to be mended."""
        ctx = await self._bench.context(command)
        skill = self._bench.skill(command.skill)
        scan = await skill.runtime.evaluator.verify(ctx)

        async def failing(ids: Sequence[str]) -> tuple[ItemDetail, ...]:
            found = [i for i in ids if scan.outcomes.get(i) in (Outcome.FAIL, Outcome.ERROR)]
            return tuple(await skill.runtime.work_queue.describe(ctx, found)) if found else ()

        return Verified(
            command_id=command.command_id,
            score=scan.score,
            outcomes=dict(scan.outcomes),
            health=await self._health(command.skill, ctx),
            artifacts=await self._keep(scan.artifacts),
            regressed=await failing(command.passed_before),
            became_applicable=await failing(command.inapplicable_before),
        )

    async def check_health(self, command: CheckHealth) -> Result:
        """Health alone, patient with a machine that is still coming up."""
        ctx = await self._bench.context(command)
        return HealthChecked(command_id=command.command_id, health=await self._health(command.skill, ctx))

    async def _health(self, skill: str, ctx: Context) -> Health:
        """Health through a session opened just now; a canary that cannot be opened is an answer, not an error."""
        health, _ = await self._reach(skill, ctx, "")
        return health

    async def _reach(self, skill: str, ctx: Context, guarded: str) -> tuple[Health, tuple[str, ...]]:
        """Health, and what the dead-man timer of a guarded effect did where the word that all is well came too late."""
        started = time.monotonic()
        try:
            canary = await ctx.session.fresh()
        except AnnealError as e:
            return Health(reachable=False, detail=str(e), took_s=round(time.monotonic() - started, 6)), ()
        try:
            health = await self._bench.skill(skill).runtime.evaluator.health(ctx, canary)
            # Without our rights back nobody could take the change back but the timer.
            late = await disarm(canary, guarded) if guarded and health.reachable and health.privileged else None
            await faultpoint(AFTER_LOOK)
        finally:
            await canary.close()
        undone = ("the dead-man timer took the change back: no new session had come in time",) if late else ()
        return health.model_copy(update={"took_s": round(time.monotonic() - started, 6)}), undone

    async def _keep(self, artifacts: Mapping[str, bytes]) -> dict[str, str]:
        """Stores artifacts as blobs: name -> digest."""
        kept = {}
        for name, content in _sorted(artifacts):
            kept[name] = await self._bench.put_blob(content, "application/octet-stream")
        return kept


def _sorted(artifacts: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]:
    return sorted(artifacts.items())
