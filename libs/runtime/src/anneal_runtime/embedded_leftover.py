"""What may be left of an embedded Postgres whose parent died: processes, and the file that names them."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from anneal_runtime import children
from anneal_runtime.errors import FailedPrecondition

# SIGINT: fast shutdown (roll back, checkpoint, exit); SIGQUIT: leave at once, recover at the next start.
STOP = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))


def pid_file(data: Path) -> list[str]:
    """The lines of postmaster.pid; none when there is no such file."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def end_leftover(data: Path) -> Iterator[None]:
    """Ends what is left of a server whose parent died. The folder's lock is ours, so no living owner wants it.

    postmaster.pid is the server's own guard against a second one on the same data: it is removed only when no process
    works in the folder and the file names somebody else's process, or a dead one that nobody has reaped yet.
    """
    pid = _named(data)
    for sig, seconds in (*STOP, (signal.SIGKILL, 5.0)):
        left = _working_in(data)
        if not left:
            break
        for one in [pid] if pid in left else left:
            children.signal_pid(one, sig)
        with contextlib.suppress(TimeoutError):
            yield from children.wait_for(lambda: not _working_in(data), seconds)
    if _working_in(data):
        raise FailedPrecondition(f"processes left over from before do not end: {_working_in(data)}", field="dir")
    if pid and Path(f"/proc/{pid}").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)


def _named(data: Path) -> int:
    """The process that postmaster.pid names; 0: none."""
    lines = pid_file(data)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else 0


def _working_in(data: Path) -> list[int]:
    """Living processes whose working folder is the cluster's: the server and its backends, and nothing else."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                here = os.readlink(entry / "cwd")
            except OSError:
                continue
            if here == str(data.resolve()) and children.alive(int(entry.name)):
                found.append(int(entry.name))
    return found
