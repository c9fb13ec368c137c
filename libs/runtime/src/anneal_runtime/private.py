"""Files for their owner alone, whatever the umask says and whoever made them before."""

import contextlib
import os
from typing import IO


def opener(path: str, flags: int) -> int:
    """For open(opener=...): the file has mode 0600, also where an earlier version had made it wider."""
    fd = os.open(path, flags, 0o600)
    if os.fstat(fd).st_mode & 0o077:
        # Somebody else's file that we may write to stays as they made it.
        with contextlib.suppress(PermissionError):
            os.fchmod(fd, 0o600)
    return fd


def append(path: str | os.PathLike[str]) -> IO[bytes]:
    """The file, to be appended to; made where it is missing."""
    return open(path, "ab", opener=opener)
