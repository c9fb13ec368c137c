"""A host of the user's, reached by SSH. Nothing of it can be saved from outside, and this driver says so."""

import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from anneal_runtime.errors import FailedPrecondition, InvalidArgument

from anneal_checkpoint.hostkey import parse_host_key
from anneal_checkpoint.model import Reach, Target

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_KEY_FILE_MAX = 64 * 1024


class SshDriver:
    """Checks what is needed for a strict SSH session; saves no states."""

    can_snapshot = False

    async def check(self, target: Target) -> Target:
        """Normal form: port 22 where none is given, host key without its comment."""
        if target.machine:
            raise InvalidArgument("machine is for driver nspawn; ssh takes host, user, key_path", field="machine")
        _check_host(target.host)
        if not 0 <= target.port <= 65535:
            raise InvalidArgument(f"port is 1 to 65535, not {target.port}", field="port")
        if not _USER.fullmatch(target.user):
            raise InvalidArgument(f"user is a login name, not {target.user[:80]!r}", field="user")
        _check_key_file(target.key_path)
        try:
            host_key = parse_host_key(target.host_key)
        except ValueError as e:
            raise InvalidArgument(f"host_key is no OpenSSH public key: {e}", field="host_key") from e
        return replace(target, port=target.port or 22, host_key=host_key)

    async def reach(self, target: Target) -> Reach:
        return Reach(
            host=target.host,
            port=target.port,
            user=target.user,
            key_path=target.key_path,
            host_key=target.host_key,
        )

    async def snapshot(self, machine: str, name: str, *, recycle: str = "") -> None:
        _refuse()

    async def restore(self, machine: str, name: str) -> None:
        _refuse()

    async def changed(self, machine: str, name: str, ignore: Sequence[str]) -> Sequence[str]:
        _refuse()

    async def drop(self, machine: str, name: str) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise FailedPrecondition(
        "a target of driver ssh has no snapshots: only fixes with a scripted undo may run on it", field="target"
    )


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
        return
    except ValueError:
        pass
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise InvalidArgument(f"host is a name or an IP address, not {host[:80]!r}", field="host")


def _check_key_file(key_path: str) -> None:
    """Refuses what ssh itself would refuse, so that it is found now and not in the middle of a run."""

    def wrong(what: str) -> InvalidArgument:
        return InvalidArgument(f"key_path {key_path[:200]!r} {what}", field="key_path")

    path = Path(key_path)
    if not path.is_absolute():
        raise wrong("is not an absolute path")
    try:
        info = path.stat()
    except OSError as e:
        raise wrong(f"cannot be read: {e.strerror}") from e
    if not stat.S_ISREG(info.st_mode):
        raise wrong("is not a file")
    if info.st_mode & 0o077:
        raise wrong(f"can be read by others (mode {info.st_mode & 0o777:04o}); run: chmod 600 {key_path[:200]}")
    if not os.access(path, os.R_OK):
        raise wrong("cannot be read by this service")
    if info.st_size > _KEY_FILE_MAX or b"PRIVATE KEY-----" not in path.read_bytes():
        raise wrong("holds no private key")
