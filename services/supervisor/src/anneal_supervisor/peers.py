"""Other replicas: a call about a run that one of them drives is handed on to it. Knows no run and no RPC by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc.aio
from anneal_runtime import rpc
from anneal_runtime.errors import DeadlineExceeded, Unavailable

from anneal_supervisor.store import Store

# Says of a call that it comes from a replica, which took this one for the driver: it goes no further.
_HANDED_ON = "anneal-handed-on"
# The driver answers within milliseconds, or it stands still and the run will be somebody else's in a moment.
_TIMEOUT_S = 3.0

Stub = Callable[[grpc.aio.Channel], Any]
# Which run a request is about; empty: none.
RunOf = Callable[[Any], str]


class Peers:
    """Channels to the replicas that drive runs. here: address of this one; empty as long as it has none."""

    def __init__(self, store: Store, token: str) -> None:
        self.here = ""
        self._store = store
        self._token = token
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def driver_of(self, run_id: str) -> grpc.aio.Channel | None:
        """To the replica that drives a run; None: nobody does, or this one."""
        address = await self._store.driver_address(run_id)
        return self._channel(address) if address and address != self.here else None

    async def asked(self, context: Any, stub: Stub, method: str, request: Any) -> list[Any]:
        """What the other replicas answer to a call that concerns all of them. Raises Unavailable."""
        if is_handed_on(context):
            return []
        found = sorted(set(await self._store.addresses()) - {self.here})
        return [await hand_on(self._channel(a), stub, method, request) for a in found]

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            # Not patient: who called us is, and asks again when another replica has the run.
            self._channels[address] = rpc.channel(address, self._token, timeout_s=_TIMEOUT_S, retry=False)
        return self._channels[address]

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()


def is_handed_on(context: Any) -> bool:
    """Does the call come from another replica?"""
    metadata: Iterable[tuple[str, Any]] = context.invocation_metadata() or ()
    return any(key == _HANDED_ON for key, _ in metadata)


async def hand_on(channel: grpc.aio.Channel, stub: Stub, method: str, request: Any) -> Any:
    """The answer of another replica. Raises what it raises, and Unavailable where it does not answer."""
    try:
        return await getattr(stub(channel), method)(request, metadata=((_HANDED_ON, "1"),))
    except DeadlineExceeded as e:
        raise Unavailable("the replica that drives the run does not answer; try again") from e


def at_the_driver(
    servicer: Any, stub: Stub, peers: Peers, drives: Callable[[str], bool], run_of: Mapping[str, RunOf]
) -> Any:
    """A servicer before which calls about a run are sent to its driver. run_of: method -> the run of a request."""
    return _AtTheDriver(servicer, stub, peers, drives, run_of)


class _AtTheDriver:
    def __init__(
        self,
        servicer: Any,
        stub: Stub,
        peers: Peers,
        drives: Callable[[str], bool],
        run_of: Mapping[str, RunOf],
    ) -> None:
        self._servicer = servicer
        self._stub = stub
        self._peers = peers
        self._drives = drives
        self._run_of = run_of

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._servicer, name)
        run_of = self._run_of.get(name)
        if run_of is None:
            return method

        async def call(request: Any, context: Any) -> Any:
            run_id = run_of(request)
            if run_id and not self._drives(run_id) and not is_handed_on(context):
                driver = await self._peers.driver_of(run_id)
                if driver is not None:
                    return await hand_on(driver, self._stub, name, request)
            return await method(request, context)

        return call
