"""The service as a process: health, reflection, token, settings, shutdown, memory."""

import grpc.aio
import pytest
from anneal.memory.v1 import memory_pb2 as pb
from anneal.memory.v1.memory_pb2_grpc import MemoryServiceStub
from anneal_runtime.errors import Unauthenticated
from anneal_runtime.rpc import channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.processes import service_process

SERVICE = "anneal.memory.v1.MemoryService"


async def test_it_serves_says_so_describes_itself_and_ends_cleanly(postgres_dsn: str, auth_token: str) -> None:
    settings = {"POSTGRES_DSN": postgres_dsn}
    async with service_process("memory", auth_token, settings) as service:
        await MemoryServiceStub(service.wire).ListTips(pb.ListTipsRequest())
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


async def test_a_caller_with_another_token_is_turned_away(postgres_dsn: str, auth_token: str) -> None:
    settings = {"POSTGRES_DSN": postgres_dsn}
    async with service_process("memory", auth_token, settings) as service:
        service.wire = channel(service.address, auth_token + "x")
        with pytest.raises(Unauthenticated):
            await MemoryServiceStub(service.wire).ListTips(pb.ListTipsRequest())
        await service.wire.close()


async def test_a_wrong_setting_is_named_and_nothing_is_started(postgres_dsn: str, auth_token: str) -> None:
    settings = {"POSTGRES_DSN": postgres_dsn, "HOME": "/", "MEMORY_NO_SUCH_THING": "1"}
    async with service_process("memory", auth_token, settings, ready=False) as service:
        code, stderr = await service.ended()
    assert code == 78
    assert "ANNEAL_MEMORY_NO_SUCH_THING" in stderr
    assert "Traceback" not in stderr
