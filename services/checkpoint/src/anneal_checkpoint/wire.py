"""Wire messages to records and back; nothing else."""

from datetime import datetime

from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal_runtime.errors import InvalidArgument
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from anneal_checkpoint.model import DriverKind, Effect, EffectState, Target, TargetView


def target_from(message: pb.Target) -> Target:
    """A target as a caller describes it. Raises InvalidArgument for an unknown driver."""
    if message.driver not in list(DriverKind):
        known = ", ".join(DriverKind)
        raise InvalidArgument(f"driver is one of {known}, not {message.driver[:40]!r}", field="driver")
    return Target(
        name=message.name,
        driver=DriverKind(message.driver),
        host=message.host,
        port=message.port,
        user=message.user,
        key_path=message.key_path,
        host_key=message.host_key,
        machine=message.machine,
        mission_services=tuple(message.mission_services),
    )


def target_to(view: TargetView) -> pb.Target:
    """A target with its reach filled in."""
    return pb.Target(
        name=view.target.name,
        driver=view.target.driver,
        host=view.reach.host,
        port=view.reach.port,
        user=view.reach.user,
        key_path=view.reach.key_path,
        host_key=view.reach.host_key,
        machine=view.target.machine,
        can_snapshot=view.can_snapshot,
        leased_by=view.leased_by,
        mission_services=view.target.mission_services,
    )


def effect_from(request: pb.BeginEffectRequest) -> Effect:
    """An effect about to begin. Raises InvalidArgument where its key is not the idempotency key."""
    message = request.effect
    if message.key not in ("", request.idempotency_key):
        raise InvalidArgument("effect.key is the idempotency key, or empty", field="effect.key")
    return Effect(
        key=request.idempotency_key,
        target=request.target,
        run_id=message.run_id,
        item_id=message.item_id,
        attempt=message.attempt,
        action_hash=message.action_hash,
        fencing_token=message.fencing_token,
        command_seq=message.command_seq,
        undoes=message.undoes,
    )


def effect_state_from(text: str) -> EffectState:
    """Raises InvalidArgument for an unknown state."""
    if text not in list(EffectState):
        raise InvalidArgument(f"state is one of {', '.join(EffectState)}, not {text[:40]!r}", field="state")
    return EffectState(text)


def effect_to(effect: Effect) -> pb.Effect:
    """An effect as it is recorded."""
    return pb.Effect(
        key=effect.key,
        run_id=effect.run_id,
        item_id=effect.item_id,
        attempt=effect.attempt,
        action_hash=effect.action_hash,
        fencing_token=effect.fencing_token,
        state=effect.state,
        exit_code=effect.exit_code,
        intended_at=timestamp(effect.intended_at),
        finished_at=timestamp(effect.finished_at),
        undoes=effect.undoes,
        command_seq=effect.command_seq,
        started_at=timestamp(effect.started_at),
        detail=effect.detail,
        target=effect.target,
    )


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def duration(seconds_: float) -> Duration:
    """Seconds as a duration, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds_ * 1e6))
    return message


def timestamp(at: datetime | None) -> Timestamp | None:
    """None stays unset."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message
