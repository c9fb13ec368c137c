"""Stubs of the services behind the door, on channels of their own."""

from anneal.checkpoint.v1.checkpoint_pb2_grpc import CheckpointServiceStub
from anneal.evaluator.v1.evaluator_pb2_grpc import EvaluatorServiceStub
from anneal.supervisor.v1.control_pb2_grpc import ControlServiceStub
from anneal.supervisor.v1.queues_pb2_grpc import QueueServiceStub
from anneal.supervisor.v1.supervisor_pb2_grpc import SupervisorServiceStub
from anneal_runtime.rpc import channel

from anneal_gateway.settings import GatewaySettings


class Clients:
    """Connects on first use, so that the gateway starts whoever is down."""

    def __init__(self, settings: GatewaySettings) -> None:
        token = settings.auth_token.get_secret_value()
        addresses = (settings.supervisor_addr, settings.evaluator_addr, settings.checkpoint_addr)
        self._channels = [channel(address, token, timeout_s=settings.call_timeout_s) for address in addresses]
        supervisor, evaluator, checkpoint = self._channels
        self.supervisor = SupervisorServiceStub(supervisor)
        self.control = ControlServiceStub(supervisor)
        self.queues = QueueServiceStub(supervisor)
        self.evaluator = EvaluatorServiceStub(evaluator)
        self.checkpoint = CheckpointServiceStub(checkpoint)

    async def close(self) -> None:
        for one in self._channels:
            await one.close()
