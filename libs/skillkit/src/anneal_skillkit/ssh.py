"""Sessions to targets over SSH: one long-lived connection each, host key pinned, sudo where the user is not root.

SSH's exec takes one string, which the far login shell reads; every program is therefore an argument list here and is
quoted with shlex.join: no caller ever writes a shell line.
"""

import asyncio
import contextlib
import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from anneal_contracts.facts import TargetAccess
from anneal_runtime.errors import (
    AnnealError,
    FailedPrecondition,
    HostKeyChanged,
    InvalidArgument,
    NotFound,
    TargetUnreachable,
)

from anneal_skillkit.interfaces import ExecResult
from anneal_skillkit.lazily import lazily

if TYPE_CHECKING:
    import asyncssh
else:
    # 26 MB and 0.3 s that a service without a session does not need.
    asyncssh = lazily("asyncssh")

CONNECT_TIMEOUT_S: Final = 10.0
# For a session beside one that worked a moment ago: what does not answer soon has been cut off.
CANARY_TIMEOUT_S: Final = 6.0
KEEPALIVE_S: Final = 5.0
# Put before the others: for these sshd and we have OpenSSL's fast code, for the defaults sshd has plain C. Some 3 ms of
# each login, and 2 ms of our own for the results of an evaluation.
_KEY_EXCHANGE: Final = "^ecdh-sha2-nistp256"
_CIPHER: Final = "^aes256-gcm@openssh.com"
# How long a killed program's channel may take to close before the answer is given without it.
_KILL_GRACE_S: Final = 2.0
# How much later than the far end's own timeout we give up on its answer.
_LATE_S: Final = 5.0
_CUT_MARK: Final = b"\n[... cut ...]\n"
_CHUNK: Final = 1 << 16

_WRITE: Final = (
    'umask 077; t=$(mktemp -- "$1.XXXXXX") || exit 73; trap \'rm -f -- "$t"\' EXIT; '
    'cat >"$t" && chmod -- "$2" "$t" && sync -- "$t" && mv -f -- "$t" "$1" || exit 74'
)
_READ: Final = '[ -e "$1" ] || exit 66; exec head -c "$2" -- "$1"'


class LoginRefused(FailedPrecondition):
    """The target answers but does not let us in: asking again changes nothing."""

    reason = "login_refused"


class PrivilegeLost(FailedPrecondition):
    """The login works and sudo does not: what was done last took our rights away."""

    reason = "privilege_lost"


class SshSession:
    """A TargetSession over one asyncssh connection. Many programs may run on it at once."""

    def __init__(self, access: TargetAccess, connection: "asyncssh.SSHClientConnection") -> None:
        self.access = access
        self._connection = connection

    @property
    def alive(self) -> bool:
        """False once the connection is known to be lost."""
        return not self._connection.is_closed()

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = True,
        timeout_s: float = 30.0,
        limit: int = 1 << 20,
    ) -> ExecResult:
        """Runs a program; see TargetSession.run. A program that outlives timeout_s is killed and exits 124.

        Raises PrivilegeLost when sudo asks for a password.
        """
        # The far end kills on time as well: a signal through sshd would not reach a program run by sudo.
        bounded = ["timeout", "-k", "2", f"{timeout_s:.3f}", *argv]
        rise = sudo and self.access.user != "root"
        line = shlex.join(["sudo", "-n", "--", *bounded] if rise else bounded)
        began = time.monotonic()
        try:
            process = await self._connection.create_process(line, encoding=None)
        except (asyncssh.Error, OSError) as e:
            raise _lost(self.access, e) from e
        try:
            async with asyncio.timeout(timeout_s + _LATE_S), asyncio.TaskGroup() as group:
                group.create_task(_pump_in(process, stdin))
                stdout = group.create_task(_pump_out(process.stdout, limit))
                stderr = group.create_task(_pump_out(process.stderr, limit))
        except TimeoutError:
            await _kill(process)
            return ExecResult(exit_code=124, stdout=b"", stderr=b"", timed_out=True)
        except ExceptionGroup as e:
            broken, other = e.split((asyncssh.Error, OSError))
            if other is not None or broken is None:
                raise
            raise _lost(self.access, broken.exceptions[0]) from e
        except asyncio.CancelledError:
            process.close()
            raise
        (out, out_cut), (err, err_cut) = stdout.result(), stderr.result()
        await process.wait_closed()
        code = process.exit_status
        if code is None:
            raise TargetUnreachable(f"{self.access.name}: the connection was lost while a program ran")
        refused = (code == 1 and err.startswith(b"sudo: ")) or (code == 127 and b"sudo: " in err)
        if rise and refused and not out:
            raise PrivilegeLost(f"{self.access.name}: {err.decode('utf-8', 'replace').strip()[:200]}")
        return ExecResult(
            exit_code=128 if code == -1 else code,
            stdout=out,
            stderr=err,
            timed_out=code in (124, 137, -1) and time.monotonic() - began >= timeout_s,
            truncated=out_cut or err_cut,
        )

    async def read(self, path: str, *, limit: int = 1 << 24) -> bytes:
        """Reads a file as root, at most limit bytes. Raises NotFound."""
        done = await self.run(["sh", "-c", _READ, "read", path, str(limit)], limit=limit)
        if done.exit_code == 66:
            raise NotFound(f"{self.access.name}: no file {path}")
        _checked(self.access, done, f"reading {path}")
        return done.stdout

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Writes a file as root, whole or not at all. Raises FailedPrecondition, for example when the disk is full."""
        done = await self.run(["sh", "-c", _WRITE, "write", path, f"{mode:04o}"], stdin=data, timeout_s=120.0)
        _checked(self.access, done, f"writing {path}")

    async def fresh(self) -> "SshSession":
        """A new, separately authenticated session: the canary."""
        return await connect(self.access, timeout_s=CANARY_TIMEOUT_S)

    def abort(self) -> None:
        """Gives the connection up without a word: there may be nobody to hear it."""
        self._connection.abort()

    async def close(self) -> None:
        """Closes the connection and waits until it is gone."""
        self._connection.close()
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            await asyncio.wait_for(self._connection.wait_closed(), _KILL_GRACE_S)


async def connect(access: TargetAccess, *, timeout_s: float = CONNECT_TIMEOUT_S) -> SshSession:
    """Opens an authenticated session (about 0.1 s on a quiet network).

    Raises HostKeyChanged, LoginRefused, InvalidArgument (unusable key), or TargetUnreachable.
    """
    trusted = _trusted_key(access)
    try:
        key = asyncssh.read_private_key(access.key_path)
    except (OSError, asyncssh.KeyImportError) as e:
        raise InvalidArgument(f"cannot use the key file of {access.name}: {e}", field="key_path") from e
    try:
        connection = await asyncio.wait_for(
            asyncssh.connect(
                access.host,
                port=access.port,
                username=access.user,
                client_keys=[key],
                known_hosts=([trusted], [], []),
                server_host_key_algs=_algorithms(trusted),
                agent_path=None,
                config=None,
                preferred_auth=("publickey",),
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=3,
                compression_algs=None,
                kex_algs=_KEY_EXCHANGE,
                encryption_algs=_CIPHER,
            ),
            timeout_s,
        )
    except asyncssh.HostKeyNotVerifiable as e:
        raise HostKeyChanged(
            f"{access.name} ({access.host}) shows another host key than the one recorded; nothing was sent to it",
            field="host_key",
        ) from e
    except asyncssh.KeyExchangeFailed as e:
        # With only the recorded key's algorithms on offer, a host that has another kind of key ends up here.
        raise HostKeyChanged(
            f"{access.name}: no agreement on the recorded host key: {_short(e)}", field="host_key"
        ) from e
    except asyncssh.PermissionDenied as e:
        raise LoginRefused(
            f"{access.name} refuses the login of {access.user} with the given key", field="key_path"
        ) from e
    except (OSError, asyncssh.Error, TimeoutError) as e:
        raise TargetUnreachable(
            f"{access.name} ({access.host}:{access.port}) does not answer: {_short(e) or 'timeout'}"
        ) from e
    return SshSession(access, connection)


class SessionPool:
    """One long-lived session for each target; a lost one is replaced at the next use."""

    def __init__(self) -> None:
        self._sessions: dict[TargetAccess, SshSession] = {}
        self._locks: dict[TargetAccess, asyncio.Lock] = {}

    async def get(self, access: TargetAccess) -> SshSession:
        """The live session of a target, opened when needed. Raises what connect raises."""
        async with self._locks.setdefault(access, asyncio.Lock()):
            session = self._sessions.get(access)
            if session is None or not session.alive:
                session = self._sessions[access] = await connect(access)
            return session

    async def drop(self, access: TargetAccess) -> None:
        """Forgets a target's session that no longer answers, for example after the machine was restored."""
        session = self._sessions.pop(access, None)
        if session is not None:
            session.abort()

    async def close(self) -> None:
        """Closes every session."""
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.close() for session in sessions))


def checked(session_name: str, done: ExecResult, what: str) -> ExecResult:
    """The result, when the program succeeded; else FailedPrecondition with what it said, cut."""
    if done.timed_out:
        raise FailedPrecondition(f"{session_name}: {what} took too long")
    if done.exit_code:
        words = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise FailedPrecondition(f"{session_name}: {what} failed with exit {done.exit_code}: {words}")
    return done


def _checked(access: TargetAccess, done: ExecResult, what: str) -> None:
    checked(access.name, done, what)


def _trusted_key(access: TargetAccess) -> "asyncssh.SSHKey":
    if not access.host_key.strip():
        raise InvalidArgument(f"{access.name} has no recorded host key", field="host_key")
    try:
        return asyncssh.import_public_key(access.host_key)
    except asyncssh.KeyImportError as e:
        raise InvalidArgument(f"the recorded host key of {access.name} cannot be read", field="host_key") from e


def _algorithms(key: "asyncssh.SSHKey") -> list[str]:
    """Host key algorithms to offer: only those of the recorded key, so that the host shows that key."""
    if key.get_algorithm() == "ssh-rsa":
        return ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"]
    return [key.get_algorithm()]


def _short(e: BaseException) -> str:
    return str(e)[:200]


def _lost(access: TargetAccess, e: BaseException) -> AnnealError:
    return TargetUnreachable(f"{access.name}: the connection was lost: {_short(e)}")


async def _pump_in(process: "asyncssh.SSHClientProcess[bytes]", data: bytes) -> None:
    # A program that does not read its input is no error of ours.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for start in range(0, len(data), _CHUNK):
            process.stdin.write(data[start : start + _CHUNK])
            await process.stdin.drain()
        process.stdin.write_eof()


async def _pump_out(reader: "asyncssh.SSHReader[bytes]", limit: int) -> tuple[bytes, bool]:
    """Reads to the end and keeps the first and last half of limit bytes when there is more."""
    head, tail, total = bytearray(), bytearray(), 0
    half = limit // 2
    while chunk := await reader.read(_CHUNK):
        total += len(chunk)
        room = max(0, limit - len(head))
        head += chunk[:room]
        tail += chunk[room:]
        if len(tail) > limit:
            del tail[: len(tail) - half]
    if total <= limit:
        return bytes(head), False
    return bytes(head[:half]) + _CUT_MARK + bytes((head[half:] + tail)[-half:]), True


async def _kill(process: "asyncssh.SSHClientProcess[bytes]") -> None:
    """Ends a program and its channel: sshd passes the signal on only to programs of the login user."""
    with contextlib.suppress(OSError, asyncssh.Error):
        process.kill()
    process.close()
    with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
        await asyncio.wait_for(process.wait_closed(), _KILL_GRACE_S)
