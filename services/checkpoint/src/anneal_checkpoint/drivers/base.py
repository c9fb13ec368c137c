"""What a driver must do. All methods may be called at the same time; a driver puts calls for one machine in a row."""

from collections.abc import Sequence
from typing import Protocol

from anneal_checkpoint.model import Reach, Target


class Driver(Protocol):
    """One kind of target. snapshot, restore and drop are idempotent: repeating one that was cut off completes it."""

    @property
    def can_snapshot(self) -> bool:
        """False: the four methods on saved states raise FailedPrecondition."""
        ...

    async def check(self, target: Target) -> Target:
        """Returns the settings in normal form. Raises InvalidArgument naming the field that is wrong."""
        ...

    async def reach(self, target: Target) -> Reach:
        """How to open a session now. Raises TargetUnreachable where the machine is not there."""
        ...

    async def snapshot(self, machine: str, name: str, *, recycle: str = "") -> None:
        """Saves the machine's whole root under a name, replacing what may be there under it.

        recycle: a saved state that is no longer needed and may be turned into the new one; it is gone afterwards.
        """
        ...

    async def restore(self, machine: str, name: str) -> None:
        """Brings the root back and starts the machine on it; returns when it answers."""
        ...

    async def changed(self, machine: str, name: str, ignore: Sequence[str]) -> Sequence[str]:
        """Paths that differ from the saved state, without those that match a glob of ignore."""
        ...

    async def drop(self, machine: str, name: str) -> None:
        """Removes a saved state; one that is not there is no error."""
        ...
