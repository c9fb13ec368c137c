"""Small blobs at hand: a script is stored by the plan and asked for when its turn comes. Blobs never change."""

from collections import OrderedDict
from typing import Final

# What is larger is read once by whoever wants it: scan results, transcripts, tailoring files.
LARGEST: Final = 32 << 10
ROOM: Final = 4 << 20


class BlobCache:
    """The last used, within a bound of bytes."""

    def __init__(self, room: int = ROOM, largest: int = LARGEST) -> None:
        self._room = room
        self._largest = largest
        self._blobs: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._size = 0

    def get(self, sha256: str) -> tuple[str, bytes] | None:
        """Media type and content, where it is here."""
        found = self._blobs.get(sha256)
        if found is not None:
            self._blobs.move_to_end(sha256)
        return found

    def put(self, sha256: str, media_type: str, content: bytes) -> None:
        """Keeps it, unless it is large or here."""
        if len(content) > self._largest or sha256 in self._blobs:
            return
        self._blobs[sha256] = (media_type, content)
        self._size += len(content)
        while self._size > self._room:
            _, (_, oldest) = self._blobs.popitem(last=False)
            self._size -= len(oldest)
