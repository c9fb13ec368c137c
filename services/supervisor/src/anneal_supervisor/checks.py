"""Checks a run's specification whole, before anything is written; every error names its field."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal.evaluator.v1 import evaluator_pb2 as evl
from anneal.supervisor.v1 import supervisor_pb2 as pb
from anneal_contracts.facts import SkillPolicy
from anneal_core import events as ev
from anneal_core.limits import ItemLimits, RoleLimits
from anneal_runtime.errors import InvalidArgument, Leased, NotFound

from anneal_supervisor.settings import SupervisorSettings

if TYPE_CHECKING:
    from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceAsyncStub
    from anneal.evaluator.v1.evaluator_pb2_grpc import EvaluatorServiceAsyncStub

MAX_ATTEMPTS = 20
_MAX_TAILORING = 4 << 20
_MAX_REASON = 500


async def checked(
    spec: pb.RunSpec,
    settings: SupervisorSettings,
    evaluator: "EvaluatorServiceAsyncStub",
    checkpoint: "CheckpointServiceAsyncStub",
) -> tuple[ev.Spec, ev.Limits, SkillPolicy]:
    """The specification as the engine takes it. Raises InvalidArgument, NotFound or Leased, naming the field."""
    limits = limits_of(spec, settings)
    skill = await _check_skill(spec, evaluator)
    if not spec.target:
        raise InvalidArgument("is required", field="target")
    await free_target(spec.target, checkpoint)
    policy = SkillPolicy.model_validate_json(skill.policy_json)
    asked = ev.Spec(
        skill=spec.skill,
        target=spec.target,
        profile=spec.profile or skill.default_profile,
        item_ids=tuple(dict.fromkeys(spec.item_ids)),
        limit=spec.limit,
        exclusions=_exclusions(spec.exclusions),
        dry_run=spec.dry_run,
        model_profile=spec.model_profile,
        use_memory=not spec.no_memory,
    )
    return asked, limits, policy


def limits_of(spec: pb.RunSpec, settings: SupervisorSettings) -> ev.Limits:
    """The run's bounds, with defaults for what was not asked. Raises InvalidArgument."""
    budget = spec.time_budget.ToMilliseconds() / 1000 if spec.HasField("time_budget") else 1800.0
    if not 1 <= budget <= settings.max_time_s:
        raise InvalidArgument(f"must be between 1 s and {settings.max_time_s:g} s", field="time_budget")
    attempts = spec.max_attempts or 3
    if not 1 <= attempts <= MAX_ATTEMPTS:
        raise InvalidArgument(f"must be between 1 and {MAX_ATTEMPTS}", field="max_attempts")
    steps = spec.max_steps or settings.max_steps
    if not 5 <= steps <= settings.max_steps:
        raise InvalidArgument(f"must be between 5 and {settings.max_steps}", field="max_steps")
    if spec.limit < 0:
        raise InvalidArgument("must not be negative", field="limit")
    if spec.limit and spec.item_ids:
        raise InvalidArgument("cannot be combined with item_ids", field="limit")
    if len(spec.tailoring) > _MAX_TAILORING:
        raise InvalidArgument(f"may have {_MAX_TAILORING} bytes at the most", field="tailoring")
    return ev.Limits(
        time_budget_s=budget,
        max_attempts=attempts,
        max_steps=steps,
        max_group=settings.max_group,
        item=ItemLimits(
            time_s=settings.item_time_s,
            time_factor=settings.item_time_factor,
            time_floor_s=settings.item_time_floor_s,
            steps=settings.item_steps,
            tokens=settings.item_tokens,
        ),
        roles=RoleLimits(
            probes=settings.probes_per_item,
            probes_now=settings.probes_per_turn,
            lessons=settings.lessons_per_item,
            choices=settings.choices_per_run,
            engagements=settings.engagements_per_item,
            review_failures=settings.review_failures,
            review_gaps=settings.review_gaps,
            similarity=settings.plateau_similarity,
        ),
    )


def _exclusions(given: Sequence[pb.Exclusion]) -> dict[str, str]:
    found: dict[str, str] = {}
    for e in given:
        if not e.reason.strip():
            raise InvalidArgument(f"{e.item_id} needs a reason: auditors will ask", field="exclusions")
        if len(e.reason) > _MAX_REASON:
            raise InvalidArgument(f"the reason for {e.item_id} is over {_MAX_REASON} characters", field="exclusions")
        found[e.item_id] = e.reason.strip()
    return found


async def _check_skill(spec: pb.RunSpec, evaluator: "EvaluatorServiceAsyncStub") -> evl.Skill:
    if not spec.skill:
        raise InvalidArgument("is required", field="skill")
    excluded = [e.item_id for e in spec.exclusions]
    answer = await evaluator.CheckRun(
        evl.CheckRunRequest(
            skill=spec.skill,
            profile=spec.profile,
            item_ids=[*spec.item_ids, *excluded],
            tailoring=spec.tailoring,
        ),
        timeout=60,
    )
    if answer.violations:
        first = answer.violations[0]
        more = f" (and {len(answer.violations) - 1} more)" if len(answer.violations) > 1 else ""
        raise InvalidArgument(first.description + more, field=first.field)
    return answer.skill


async def free_target(name: str, checkpoint: "CheckpointServiceAsyncStub") -> cp.Target:
    """A target that no run holds. Raises NotFound, Leased."""
    try:
        answer = await checkpoint.GetTarget(cp.GetTargetRequest(name=name))
    except NotFound as e:
        raise NotFound(f"no target {name!r}; `anneal target list` shows them", field="target") from e
    if answer.target.leased_by:
        raise Leased(f"{name} is leased by {answer.target.leased_by}", field="target")
    return answer.target
