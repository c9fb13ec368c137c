"""Running oscap on the target: the full scan, one rule by a scan, one rule by its cut-down OVAL.

Each is one exec. Work files live in a fresh root-only folder under /run and are gone afterwards; what is judged comes
from here with every call, so that nothing on the target can stand in for it.
"""

import asyncio
import gzip
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from anneal_contracts.facts import Outcome
from anneal_runtime.errors import DeadlineExceeded, FailedPrecondition
from anneal_skillkit.interfaces import ExecResult, TargetSession

from stig_rhel9.content import Content
from stig_rhel9.results import RuleResults

_UPLOAD_DIR: Final = "/var/lib/anneal/content"
_ARF_LIMIT: Final = 128 << 20
_OVAL_LIMIT: Final = 32 << 20
_NO_OSCAP: Final = 127
_NO_CONTENT: Final = 65
_FEED: Final = 1 << 20

# Arguments: sha256 of the datastream, where it may be (one a line), profile, 1 when standard input is a tailoring file,
# rules.
_SCAN: Final = r"""
set -u
umask 077
sha=$1 paths=$2 profile=$3 tailored=$4
shift 4
command -v oscap >/dev/null || exit 127
content=
while IFS= read -r path; do
    if [ -f "$path" ] && [ "$(sha256sum <"$path")" = "$sha  -" ]; then content=$path; break; fi
done <<PATHS
$paths
PATHS
[ -n "$content" ] || exit 65
mkdir -p /run/anneal && work=$(mktemp -d /run/anneal/scan.XXXXXX) || exit 73
trap 'rm -rf "$work"' EXIT
cat >"$work/tailoring.xml"
set -- --profile "$profile" "$@"
[ "$tailored" = 0 ] || set -- --tailoring-file "$work/tailoring.xml" "$@"
mkfifo "$work/arf"
exec 7<>"$work/arf"
gzip -1 -c <"$work/arf" 7>&- &
packer=$!
oscap xccdf eval --skip-validation "$@" --results-arf "$work/arf" "$content" </dev/null >/dev/null 2>"$work/words" 7>&-
code=$?
exec 7>&-
wait "$packer"
tail -c 2000 "$work/words" >&2
exit "$code"
"""

# Standard input: the OVAL file. The results go to standard output.
_EVALUATE: Final = r"""
umask 077
[ -d /run/anneal ] || mkdir -p /run/anneal
work=$(mktemp -d /run/anneal/oval.XXXXXX) || exit 73
trap 'rm -rf "$work"' EXIT
cat >"$work/d.xml" || exit 73
cd "$work" || exit 73
oscap oval eval --skip-valid --results r.xml d.xml >/dev/null 2>words </dev/null
code=$?
[ "$code" = 0 ] || { tail -c 2000 words >&2; exit "$code"; }
cat r.xml
"""


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """Outcomes of all selected rules, the tests that were false, and the ARF file, gzipped."""

    outcomes: dict[str, Outcome]
    false_tests: frozenset[str]
    arf: bytes


async def full_scan(
    session: TargetSession, content: Content, *, rules: Sequence[str] = (), timeout_s: float = 300.0
) -> ScanResult:
    """A full XCCDF scan (about 5 s), or one of some rules only.

    Raises FailedPrecondition (no oscap, results that cannot be read), DeadlineExceeded, TargetUnreachable.
    """
    done = await _scan(session, content, rules, timeout_s)
    if done.exit_code == _NO_CONTENT:
        await _upload(session, content)
        done = await _scan(session, content, rules, timeout_s)
    _raise_for(session, done, good=(0, 2), limit_s=timeout_s)
    results = await asyncio.to_thread(read_arf, done.stdout)
    if not results.outcomes:
        raise FailedPrecondition(f"{session.access.name}: the scan gave no results")
    return ScanResult(outcomes=results.outcomes, false_tests=frozenset(results.false_tests), arf=done.stdout)


async def oval_results(session: TargetSession, definitions: bytes, *, timeout_s: float = 60.0) -> bytes:
    """The results XML of a cut-down OVAL file (p50 about 40 ms). Raises as full_scan does."""
    done = await session.run(["sh", "-c", _EVALUATE], stdin=definitions, timeout_s=timeout_s, limit=_OVAL_LIMIT)
    _raise_for(session, done, good=(0,), limit_s=timeout_s)
    return done.stdout


async def _scan(session: TargetSession, content: Content, rules: Sequence[str], timeout_s: float) -> ExecResult:
    paths = "\n".join((str(content.datastream), _uploaded(content)))
    chosen = [word for rule in rules for word in ("--rule", rule)]
    tailored = "1" if content.tailoring else "0"
    argv = ["sh", "-c", _SCAN, "scan", content.sha256, paths, content.profile, tailored, *chosen]
    return await session.run(argv, stdin=content.tailoring, timeout_s=timeout_s, limit=_ARF_LIMIT)


def _uploaded(content: Content) -> str:
    return f"{_UPLOAD_DIR}/{content.sha256}.xml"


async def _upload(session: TargetSession, content: Content) -> None:
    """Brings our datastream to a target that has none or another one; some 1.3 MB on the wire."""
    packed = await asyncio.to_thread(lambda: gzip.compress(content.datastream.read_bytes(), 6))
    path = shlex.quote(_uploaded(content))
    script = f"umask 077; mkdir -p {_UPLOAD_DIR} && gunzip -c >{path}.new && mv {path}.new {path}"
    done = await session.run(["sh", "-c", script], stdin=packed, timeout_s=120.0)
    _raise_for(session, done, good=(0,), limit_s=120.0)


def read_arf(packed: bytes) -> RuleResults:
    """Reads the gzipped ARF piece by piece: it is 20 MB and more when unpacked."""
    results = RuleResults()
    unpack = zlib.decompressobj(wbits=31)
    try:
        rest = packed
        while not unpack.eof:
            piece = unpack.decompress(rest, _FEED)
            rest = unpack.unconsumed_tail
            if not piece and not rest and not unpack.eof:
                raise FailedPrecondition("the scan's results were cut short")
            results.feed(piece)
    except zlib.error as e:
        raise FailedPrecondition(f"the scan's results cannot be unpacked: {e}") from e
    results.feed(b"", last=True)
    return results


def _raise_for(session: TargetSession, done: ExecResult, *, good: Sequence[int], limit_s: float) -> None:
    name = session.access.name
    if done.timed_out:
        raise DeadlineExceeded(f"{name}: oscap took more than {limit_s:.0f} s")
    if done.exit_code == _NO_OSCAP:
        raise FailedPrecondition(f"{name}: oscap is not installed there: dnf install openscap-scanner", field="target")
    if done.exit_code not in good:
        words = " ".join(done.stderr.decode("utf-8", "replace").split())[-400:]
        raise FailedPrecondition(f"{name}: oscap ended with {done.exit_code}: {words}", field="target")
    if done.truncated:
        raise FailedPrecondition(f"{name}: the results are larger than we take")
