"""Keys for the lab, and waiting until a machine lets us in."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from anneal_lab.model import Access, LabError
from anneal_lab.proc import run

_POLL_S = 0.02
_GRACE_S = 1.0


def make_key(path: Path, comment: str) -> None:
    """An Ed25519 key pair without passphrase, if there is none yet. It opens lab machines and nothing else."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])


def public_key(path: Path) -> str:
    return path.with_suffix(".pub").read_text().strip()


def ssh_argv(access: Access, known_hosts: Path, command: Sequence[str] = (), *, tty: bool = False) -> list[str]:
    """An ssh command line that trusts the machine's host key and no other, and reads no user configuration."""
    known_hosts.parent.mkdir(parents=True, exist_ok=True)
    # Replaced, not rewritten: another process may be reading it.
    with tempfile.NamedTemporaryFile("w", dir=known_hosts.parent, delete=False) as handle:
        handle.write(f"{access.host} {access.host_key}\n")
    os.replace(handle.name, known_hosts)
    options = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null"]
    options += ["IdentitiesOnly=yes", "BatchMode=yes", "ConnectTimeout=5", "LogLevel=ERROR"]
    flags = [part for option in options for part in ("-o", option)]
    terminal = ["-t"] if tty else []
    target = f"{access.user}@{access.host}"
    key = str(access.key_path)
    return ["ssh", "-F", "/dev/null", *flags, *terminal, "-i", key, "-p", str(access.port), target, *command]


def wait_for_login(access: Access, known_hosts: Path, *, seconds: float, alive: Callable[[], bool]) -> None:
    """Wait until a login as the lab's user works; LabError when the time is over or the machine has died."""
    begin = time.monotonic()
    last = "no answer on port 22"
    while time.monotonic() < begin + seconds:
        # Under a host's systemd the machine's processes cannot be told apart before nspawn has made their scope.
        if time.monotonic() > begin + _GRACE_S and not alive():
            raise LabError("it stopped while booting")
        if not _banner(access):
            time.sleep(_POLL_S)
            continue
        try:
            run(ssh_argv(access, known_hosts, ["true"]), timeout=10)
            return
        except LabError as error:
            last = str(error)
            time.sleep(0.1)
    raise LabError(f"no SSH login within {seconds:.0f} s: {last}")


def _banner(access: Access) -> bool:
    try:
        with socket.create_connection((access.host, access.port), timeout=1) as link:
            return link.recv(4) == b"SSH-"
    except OSError:
        return False
