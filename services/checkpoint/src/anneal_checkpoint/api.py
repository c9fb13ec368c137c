"""The gRPC face: turns messages into calls of the rules and back. Errors pass through to the runtime's table."""

from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceServicer

from anneal_checkpoint import wire
from anneal_checkpoint.checks import check_target_name
from anneal_checkpoint.effects import Effects
from anneal_checkpoint.leases import Leases
from anneal_checkpoint.operations import Operations
from anneal_checkpoint.orders import Order
from anneal_checkpoint.targets import Targets

SERVICE = pb.DESCRIPTOR.services_by_name["CheckpointService"].full_name


class CheckpointApi(CheckpointServiceServicer):
    """anneal.checkpoint.v1.CheckpointService."""

    def __init__(self, *, targets: Targets, leases: Leases, operations: Operations, effects: Effects) -> None:
        self._targets = targets
        self._leases = leases
        self._operations = operations
        self._effects = effects

    async def AddTarget(self, request: pb.AddTargetRequest, context: object) -> pb.AddTargetResponse:
        view = await self._targets.add(request.idempotency_key, wire.target_from(request.target))
        return pb.AddTargetResponse(target=wire.target_to(view))

    async def GetTarget(self, request: pb.GetTargetRequest, context: object) -> pb.GetTargetResponse:
        return pb.GetTargetResponse(target=wire.target_to(await self._targets.get(request.name)))

    async def ListTargets(self, request: pb.ListTargetsRequest, context: object) -> pb.ListTargetsResponse:
        return pb.ListTargetsResponse(targets=[wire.target_to(v) for v in await self._targets.every()])

    async def RemoveTarget(self, request: pb.RemoveTargetRequest, context: object) -> pb.RemoveTargetResponse:
        await self._targets.remove(request.idempotency_key, request.name)
        return pb.RemoveTargetResponse()

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: object) -> pb.AcquireLeaseResponse:
        check_target_name(request.target, "target")
        granted = await self._leases.acquire(
            request.idempotency_key, request.target, request.run_id, wire.seconds(request.ttl)
        )
        return pb.AcquireLeaseResponse(
            fencing_token=granted.token,
            expires_at=wire.timestamp(granted.expires_at),
            target=wire.target_to(granted.target),
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: object) -> pb.RenewLeaseResponse:
        check_target_name(request.target, "target")
        expires_at = await self._leases.renew(
            request.idempotency_key, request.target, request.run_id, request.fencing_token, wire.seconds(request.ttl)
        )
        return pb.RenewLeaseResponse(expires_at=wire.timestamp(expires_at))

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, context: object) -> pb.ReleaseLeaseResponse:
        check_target_name(request.target, "target")
        await self._leases.release(request.idempotency_key, request.target, request.run_id, request.fencing_token)
        return pb.ReleaseLeaseResponse()

    async def Snapshot(self, request: pb.SnapshotRequest, context: object) -> pb.SnapshotResponse:
        done = await self._operations.snapshot(_order(request))
        return pb.SnapshotResponse(generation=done.generation, took=wire.duration(done.took_s))

    async def Restore(self, request: pb.RestoreRequest, context: object) -> pb.RestoreResponse:
        done = await self._operations.restore(
            _order(request), force=request.force, volatile=list(request.volatile_paths)
        )
        return pb.RestoreResponse(
            restored=done.restored, changed_paths=done.changed_paths, took=wire.duration(done.took_s)
        )

    async def ListGenerations(self, request: pb.ListGenerationsRequest, context: object) -> pb.ListGenerationsResponse:
        check_target_name(request.target, "target")
        kept = await self._operations.generations(request.target, request.run_id)
        found = [pb.Generation(generation=s.generation, taken_at=wire.timestamp(s.taken_at)) for s in kept]
        return pb.ListGenerationsResponse(generations=found)

    async def BeginEffect(self, request: pb.BeginEffectRequest, context: object) -> pb.BeginEffectResponse:
        check_target_name(request.target, "target")
        begun = await self._effects.begin(wire.effect_from(request))
        return pb.BeginEffectResponse(
            effect=wire.effect_to(begun.effect),
            begun_before=begun.before,
            ledger=begun.ledger,
            lease_left=wire.duration(begun.lease_left_s),
        )

    async def StartEffect(self, request: pb.StartEffectRequest, context: object) -> pb.StartEffectResponse:
        return pb.StartEffectResponse(effect=wire.effect_to(await self._effects.start(request.idempotency_key)))

    async def FinishEffect(self, request: pb.FinishEffectRequest, context: object) -> pb.FinishEffectResponse:
        state = wire.effect_state_from(request.state)
        effect = await self._effects.finish(request.idempotency_key, state, request.exit_code, request.detail)
        return pb.FinishEffectResponse(effect=wire.effect_to(effect))

    async def ListEffects(self, request: pb.ListEffectsRequest, context: object) -> pb.ListEffectsResponse:
        return pb.ListEffectsResponse(effects=[wire.effect_to(e) for e in await self._effects.of_run(request.run_id)])


def _order(request: pb.SnapshotRequest | pb.RestoreRequest) -> Order:
    check_target_name(request.target, "target")
    return Order(
        key=request.idempotency_key,
        target=request.target,
        run_id=request.run_id,
        token=request.fencing_token,
        generation=request.generation,
        command_seq=request.command_seq,
        from_run=request.from_run if isinstance(request, pb.RestoreRequest) else "",
        first=isinstance(request, pb.SnapshotRequest) and request.first,
    )
