"""The service as a process: health, reflection, token, settings, shutdown, memory."""

from pathlib import Path

import grpc.aio
import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as pb
from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal_runtime.errors import Unauthenticated
from anneal_runtime.rpc import channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.processes import service_process

SERVICE = "anneal.checkpoint.v1.CheckpointService"


async def test_it_serves_says_so_describes_itself_and_ends_cleanly(
    postgres_dsn: str, auth_token: str, tmp_path: Path
) -> None:
    settings = {"POSTGRES_DSN": postgres_dsn, "HOME": str(tmp_path)}
    async with service_process("checkpoint", auth_token, settings) as service:
        await CheckpointServiceStub(service.wire).ListTargets(pb.ListTargetsRequest())
        # Health needs no token: what asks for it (a kubelet) has none.
        async with grpc.aio.insecure_channel(service.address) as bare:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            answer = await health_pb2_grpc.HealthStub(bare).Check(request)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        described = reflection_pb2_grpc.ServerReflectionStub(service.wire).ServerReflectionInfo(iter([ask]))
        names = [s.name async for reply in described for s in reply.list_services_response.service]
        assert SERVICE in names
        assert service.rss_mb() < 90
        code, stderr = await service.stop()
    assert code == 0
    assert '"level": "ERROR"' not in stderr
    assert "Traceback" not in stderr


async def test_a_caller_with_another_token_is_turned_away(postgres_dsn: str, auth_token: str, tmp_path: Path) -> None:
    settings = {"POSTGRES_DSN": postgres_dsn, "HOME": str(tmp_path)}
    async with service_process("checkpoint", auth_token, settings) as service:
        service.wire = channel(service.address, auth_token + "x")
        with pytest.raises(Unauthenticated):
            await CheckpointServiceStub(service.wire).ListTargets(pb.ListTargetsRequest())
        await service.wire.close()


async def test_a_wrong_setting_is_named_and_nothing_is_started(postgres_dsn: str, auth_token: str) -> None:
    settings = {"POSTGRES_DSN": postgres_dsn, "HOME": "/", "CHECKPOINT_NO_SUCH_THING": "1"}
    async with service_process("checkpoint", auth_token, settings, ready=False) as service:
        code, stderr = await service.ended()
    assert code == 78
    assert "ANNEAL_CHECKPOINT_NO_SUCH_THING" in stderr
    assert "Traceback" not in stderr
