"""The five interfaces put together."""

from collections.abc import Mapping, Sequence

from anneal_contracts.facts import DeclaredMode, DeferredItemOutcome, ItemDetail
from anneal_skillkit.deferral import judged_again
from anneal_skillkit.interfaces import Checkpoint, Context, Emit, Evaluator, Executor, WorkQueue
from anneal_skillkit.loader import SkillSpec
from anneal_skillkit.probes import ProbeTool

from stig_rhel9.content import ContentStore
from stig_rhel9.exports import export
from stig_rhel9.judge import StigEvaluator
from stig_rhel9.ladder import StigExecutor
from stig_rhel9.questions import own_probes
from stig_rhel9.queue import StigQueue
from stig_rhel9.vendor_tool import remediate


class VolatilePaths:
    """The Checkpoint of the skill: what the manifest lists."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def volatile_paths(self) -> Sequence[str]:
        """Globs of paths that change by themselves."""
        return self._paths


class StigSkill:
    """The SkillRuntime."""

    def __init__(self, spec: SkillSpec) -> None:
        self._manifest = spec.manifest
        self._store = ContentStore(spec.manifest, spec.folder, spec.cache)
        self.work_queue: WorkQueue = StigQueue(spec.manifest, self._store)
        self.executor: Executor = StigExecutor(spec.manifest, spec.folder, self._store)
        self.evaluator: Evaluator = StigEvaluator(spec.manifest, self._store)
        self.checkpoint: Checkpoint = VolatilePaths(spec.manifest.volatile_paths)

    def modes(self) -> Sequence[DeclaredMode]:
        """The failure modes of the skill's own."""
        return self._manifest.modes

    def probes(self) -> Sequence[ProbeTool]:
        """Questions that a model may ask beside the kit's."""
        return own_probes()

    async def resolve_deferred(
        self, ctx: Context, reason: str, items: Sequence[ItemDetail], emit: Emit
    ) -> Sequence[DeferredItemOutcome]:
        """Rules that waited for a boot: the engine restarted the machine, so their checks are asked again."""
        return await judged_again(self.evaluator, ctx, reason, items, emit)

    async def baseline(self, ctx: Context) -> str:
        """The vendor's own remediation, unattended."""
        return await remediate(ctx, await self._store.get(ctx.profile, ctx.tailoring))

    async def export(self, fmt: str, run: Mapping[str, object], artifacts: Mapping[str, bytes]) -> tuple[bytes, str]:
        """arf or cklb of a finished run; see stig_rhel9.exports."""
        return await export(self._store, fmt, run, artifacts)
