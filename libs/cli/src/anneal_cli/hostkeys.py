"""The host key of a new SSH target: from a file, or shown by the host and accepted by a person."""

import base64
import binascii
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import click

from anneal_cli.exits import CliError, ExitCode

# The order in which keys are preferred where a host shows several.
_ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_SCAN_S = 8


def split_address(where: str) -> tuple[str, str, int]:
    """User, host and port (22 where none is given) of USER@HOST[:PORT]; IPv6 in brackets. Raises CliError."""
    found = re.fullmatch(r"([^@\s]+)@(?:\[([0-9A-Fa-f:.]+)\]|([^:@\s]+))(?::(\d{1,5}))?", where)
    if not found or not 0 < int(found[4] or 22) < 65536:
        raise CliError(
            message=f"not USER@HOST[:PORT]: {where!r}", code=ExitCode.USAGE, field="--ssh", hint="--ssh admin@web1:22"
        )
    return found[1], found[2] or found[3], int(found[4] or 22)


def keys_in(text: str) -> list[str]:
    """The public keys of a .pub file or of known_hosts lines, as "ALGORITHM BASE64", best first."""
    found = re.findall(rf"({'|'.join(_ALGORITHMS)})\s+([A-Za-z0-9+/]{{32,}}={{0,2}})", text)
    return sorted((f"{algorithm} {body}" for algorithm, body in found), key=lambda k: _ALGORITHMS.index(k.split()[0]))


def fingerprint(key: str) -> str:
    """SHA256:... as ssh-keygen -l shows it. Raises CliError for a damaged key."""
    try:
        body = base64.b64decode(key.split()[1], validate=True)
    except (binascii.Error, IndexError) as e:
        raise CliError(message="the host key is damaged", code=ExitCode.USAGE, field="--host-key") from e
    return "SHA256:" + base64.b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")


def key_of_file(path: Path, host: str) -> str:
    """The key in a file; of a file with many lines, the one line that names the host. Raises CliError."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if keys_in(line)]
    named = [line for line in lines if host in re.split(r"[,\s\[\]]", line)]
    keys = keys_in("\n".join(named or lines))
    if not keys or (len(lines) > 1 and not named):
        raise CliError(
            message=f"{path} holds no public key for {host}",
            code=ExitCode.USAGE,
            field="--host-key",
            hint="give a .pub file of the host, for example a copy of its /etc/ssh/ssh_host_ed25519_key.pub",
        )
    return keys[0]


def accepted_key(host: str, port: int, *, yes: bool) -> str:
    """Asks the host for its key and shows the fingerprint; a person (or --yes) accepts it. Raises CliError."""
    key = _scan(host, port)
    click.echo(f"{host}:{port} shows {key.split()[0]} {fingerprint(key)}", err=True)
    if yes:
        return key
    if not sys.stdin.isatty():
        raise CliError(
            message="nobody is there to compare the fingerprint",
            code=ExitCode.USAGE,
            field="--host-key",
            hint="compare it with ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there, then add --yes",
        )
    if not click.confirm("Is that the fingerprint you see on the host itself?", default=False, err=True):
        raise CliError(
            message="the host key was not accepted; nothing was added", code=ExitCode.NOT_HELD, field="--host-key"
        )
    return key


def _scan(host: str, port: int) -> str:
    argv = ["ssh-keyscan", "-T", str(_SCAN_S), "-p", str(port), "-t", "ed25519,ecdsa,rsa", "--", host]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SCAN_S * 4, check=False)
        keys = keys_in(done.stdout)
    except FileNotFoundError as e:
        raise CliError(
            message="ssh-keyscan is not installed", field="--host-key", hint="apt-get install openssh-client"
        ) from e
    except subprocess.TimeoutExpired:
        keys = []
    if not keys:
        raise CliError(
            message=f"{host}:{port} shows no SSH host key",
            code=ExitCode.NOT_HELD,
            field="--ssh",
            hint=f"does it answer? ssh -p {port} {host}",
        )
    return keys[0]
