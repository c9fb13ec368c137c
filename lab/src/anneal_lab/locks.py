"""Locks between processes. The kernel drops a flock with its holder, so a killed process leaves none behind."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anneal_lab.model import LabError

_POLL_S = 0.02


@contextmanager
def locked(path: Path, *, timeout: float = 300, what: str = "") -> Iterator[None]:
    """Hold `path` exclusively. Between threads too: each call opens the file anew.

    O_CLOEXEC (Python's default) matters: a machine started under the lock must not inherit it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle, path, timeout, what)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path, timeout: float, what: str) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise LabError(f"{what or path} is still in use by another process after {timeout:.0f} s") from None
            time.sleep(_POLL_S)
