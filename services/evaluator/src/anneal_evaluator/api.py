"""gRPC of the evaluator: wire messages in and out, nothing else."""

from typing import Any

from anneal.common.v1 import common_pb2
from anneal.evaluator.v1 import evaluator_pb2 as pb
from anneal.evaluator.v1 import evaluator_pb2_grpc
from anneal.supervisor.v1 import supervisor_pb2 as sup
from anneal_contracts.canonical import canonical_json
from anneal_runtime.errors import InvalidArgument
from anneal_skillkit.bench import Workbench
from anneal_skillkit.loader import Skill
from google.protobuf.json_format import MessageToDict

from anneal_evaluator.reach import reach_checks
from anneal_evaluator.store import BaselineStore


class EvaluatorApi(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Thin: every method is a translation."""

    def __init__(self, bench: Workbench, store: BaselineStore) -> None:
        self._bench = bench
        self._store = store

    async def ListSkills(self, request: pb.ListSkillsRequest, context: Any) -> pb.ListSkillsResponse:
        good = [_skill(s) for _, s in sorted(self._bench.skills.skills.items())]
        bad = [pb.Skill(name=n, error=str(e)) for n, e in sorted(self._bench.skills.broken.items())]
        return pb.ListSkillsResponse(skills=[*good, *bad])

    async def CheckRun(self, request: pb.CheckRunRequest, context: Any) -> pb.CheckRunResponse:
        skill = self._bench.skill(request.skill)
        found = await skill.runtime.work_queue.check(
            profile=request.profile or skill.manifest.default_profile,
            item_ids=list(request.item_ids),
            tailoring=request.tailoring,
        )
        violations = [common_pb2.FieldViolation(field=f, description=d) for f, d in found]
        return pb.CheckRunResponse(violations=violations, skill=_skill(skill))

    async def CheckTarget(self, request: pb.CheckTargetRequest, context: Any) -> pb.CheckTargetResponse:
        if not request.target:
            raise InvalidArgument("is required", field="target")
        checks = await reach_checks(self._bench, request.target, request.skill)
        return pb.CheckTargetResponse(ok=all(c.ok for c in checks), checks=checks)

    async def Export(self, request: pb.ExportRequest, context: Any) -> pb.ExportResponse:
        run = (await self._bench.supervisor.GetRun(sup.GetRunRequest(run_id=request.run_id))).run
        skill = self._bench.skill(run.spec.skill)
        formats = [e.format for e in skill.manifest.exports]
        if request.format not in formats:
            known = ", ".join(["html", "json", "jsonl", *formats])
            raise InvalidArgument(f"{run.spec.skill} cannot write {request.format!r}; known: {known}", field="format")
        artifacts = {name: await self._bench.blob(blob) for name, blob in run.artifacts.items()}
        document = MessageToDict(run, preserving_proto_field_name=True)
        content, media_type = await skill.runtime.export(request.format, document, artifacts)
        return pb.ExportResponse(content=content, media_type=media_type)

    async def RecordBaseline(self, request: pb.RecordBaselineRequest, context: Any) -> pb.RecordBaselineResponse:
        for field in ("skill", "profile", "fingerprint"):
            if not getattr(request.baseline, field):
                raise InvalidArgument("is required", field=f"baseline.{field}")
        await self._store.record(request.idempotency_key, request.baseline)
        return pb.RecordBaselineResponse()

    async def GetBaseline(self, request: pb.GetBaselineRequest, context: Any) -> pb.GetBaselineResponse:
        found = await self._store.newest(request.skill, request.profile, request.fingerprint)
        return pb.GetBaselineResponse(baseline=found)


def _skill(skill: Skill) -> pb.Skill:
    m = skill.manifest
    return pb.Skill(
        name=m.name,
        version=m.version,
        summary=m.summary,
        profiles=[p.name for p in m.profiles],
        default_profile=m.default_profile,
        export_formats=[e.format for e in m.exports],
        policy_json=canonical_json(m.policy()),
    )
