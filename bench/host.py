"""What a figure was measured on: the machine, how busy others keep it, the commit."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[1]
# A figure from a machine that others work on says more about them than about us.
QUIET_LOAD: Final = 1.0
QUIET_BUSY: Final = 0.25


def load() -> float:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def machine(load_at_start: float) -> dict[str, Any]:
    """The machine of a document.

    load: average of the minute before the program started, before its own work counts; busy: share of all CPUs that
    others use just now, looked at for a second.
    """
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "memory_mb": round(psutil.virtual_memory().total / 1e6),
        "kernel": platform.release(),
        "load": load_at_start,
        "busy": round(psutil.cpu_percent(interval=1.0) / 100, 2),
    }


def warning(found: Mapping[str, Any]) -> str:
    """Why figures from this machine are inflated; empty for a quiet one."""
    if found["load"] <= QUIET_LOAD and found["busy"] <= QUIET_BUSY:
        return ""
    return (
        f"WARNING: measured on a busy machine (load {found['load']:g} at the start, others use {found['busy']:.0%} of "
        "the CPUs now): these figures are inflated"
    )


def cpu_model(cpuinfo: str) -> str:
    """The model's name in the text of /proc/cpuinfo; the architecture where it has none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def commit() -> str:
    """The commit's hash, with -dirty where tracked files differ from it; empty outside of a checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
