"""The lab: a disposable EL9-like machine to practise on.

Owns: building the image from Debian packages, booting machines from it by systemd-nspawn on an overlay,
giving each its own network pair and SSH access, snapshots of the whole root taken and restored from outside.

Does not belong here: anything about rules, verdicts, runs or fixes. The lab imports no other anneal package
and no third-party one, so that it works on a bare machine before anything else is installed. All functions
are synchronous; call them from a thread.
"""

from anneal_lab.cli import main
from anneal_lab.lab import Lab
from anneal_lab.model import Access, LabError, MachineStatus, Problem
from anneal_lab.preflight import install_host_packages, preflight

__all__ = [
    "Access",
    "Lab",
    "LabError",
    "MachineStatus",
    "Problem",
    "install_host_packages",
    "main",
    "preflight",
]
