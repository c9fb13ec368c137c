"""Running host commands, with errors a person can act on."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from anneal_lab.model import LabError

_TAIL = 1500


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 120,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return what it printed; LabError with its last words when it fails.

    The child gets a session of its own: Ctrl-C in the caller's terminal must not tear a half-done mount.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed; `python -m anneal_lab preflight` says what is missing") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{words[0]} took longer than {timeout:.0f} s: {' '.join(words)[:200]}") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(words)[:200]} ended with {done.returncode}: {done.stdout[-_TAIL:].strip()}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, timeout: float = 30) -> bool:
    """True when the command ends with 0; for questions, not for work."""
    try:
        run(argv, timeout=timeout)
    except LabError:
        return False
    return True
