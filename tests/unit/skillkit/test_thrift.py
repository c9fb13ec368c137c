"""Modules loaded at first use, and memory handed back after a large command."""

import subprocess
import sys
from pathlib import Path

import pytest
from anneal_skillkit.lazily import lazily
from anneal_skillkit.thrift import give_back


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def test_freed_memory_goes_back_to_the_machine() -> None:
    # Larger than what Python pools by itself; the last one keeps the heap from shrinking at its end.
    blocks = [bytes(1000) for _ in range(60_000)]
    last = blocks[-1]
    full = _resident_mb()
    del blocks
    assert give_back()
    assert _resident_mb() < full - 30
    assert len(last) == 1000


def test_a_lazy_module_runs_at_its_first_use() -> None:
    script = """
import sys
from anneal_skillkit import ssh
assert "cryptography" not in sys.modules
ssh.asyncssh.Error
assert "cryptography" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_not_installed_is_told_at_once() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        lazily("no_such_module_of_ours")
