"""gRPC for every service: one way to serve, one way to call. The details are in rpc_server and rpc_client."""

from anneal_runtime.rpc_client import channel
from anneal_runtime.rpc_server import RpcServer, serve
from anneal_runtime.rpc_wire import serves_nobody

__all__ = ["RpcServer", "channel", "serve", "serves_nobody"]
