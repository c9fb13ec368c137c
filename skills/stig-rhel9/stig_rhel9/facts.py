"""Facts of a target that decide what can be mended there, found by one probe script (probe.sh)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anneal_runtime.errors import FailedPrecondition
from anneal_skillkit.interfaces import TargetSession
from anneal_skillkit.ssh import checked

from stig_rhel9.content import Content

_PROBE: Final = Path(__file__).with_name("probe.sh").read_text(encoding="utf-8")
# It may have to fetch the lists of the repositories; the script itself gives dnf 60 s.
_PROBE_TIMEOUT_S: Final = 90.0


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What the failing rules turn on: kernel parameters and packages by name."""

    sysctls: frozenset[str]
    packages: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one probe found.

    fixed_sysctls, absent_sysctls: kernel parameters that cannot be set, are not there. unoffered: packages asked for
    that are not installed and in no enabled repository; empty also when the repositories could not be read. dead_units:
    unit -> why it cannot run here. hidden_mounts: mount points without nodev that lie under another mount. login:
    "nopasswd" or "noauthenticate" when anneal's own sudo hangs on just that.
    """

    os_id: str
    os_version: str
    release: str
    arch: str
    virtualization: str
    mounts: frozenset[str]
    fixed_sysctls: frozenset[str]
    absent_sysctls: frozenset[str]
    unoffered: frozenset[str]
    dead_units: Mapping[str, str]
    hidden_mounts: frozenset[str]
    signing_key: bool
    login: str

    def fingerprint(self, content: Content) -> str:
        """What a fix that worked depends on. Two fresh clones share it; other systems, content or values do not.

        Installed packages are left out on purpose: one more package would forget all that was learnt, and a recalled
        fix is evaluated and reverted like any other.
        """
        parts = (
            self.os_id,
            self.os_version,
            self.release,
            self.arch,
            self.virtualization,
            content.sha256,
            content.profile,
            content.tailoring_sha256,
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


async def probe(session: TargetSession, questions: Questions) -> Facts:
    """One exec that gathers all facts. Raises FailedPrecondition, TargetUnreachable."""
    lines = [f"sysctl {name}\n" for name in sorted(questions.sysctls)]
    lines += [f"package {name}\n" for name in sorted(questions.packages)]
    run = session.run(["sh", "-c", _PROBE], stdin="".join(lines).encode(), timeout_s=_PROBE_TIMEOUT_S)
    done = checked(session.access.name, await run, "looking at the system")
    found: dict[str, list[list[str]]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, *values = line.split("\t")
        found.setdefault(key, []).append(values)

    def names(key: str) -> frozenset[str]:
        return frozenset(values[0] for values in found.get(key, []))

    try:
        ((os_id, os_version),) = found["os"]
        return Facts(
            os_id=os_id,
            os_version=os_version,
            release=found["release"][0][0],
            arch=found["arch"][0][0],
            virtualization=found["virtualization"][0][0],
            mounts=names("mount"),
            fixed_sysctls=names("readonly"),
            absent_sysctls=names("absent"),
            unoffered=names("unoffered"),
            dead_units={values[0]: values[1] for values in found.get("cannot", [])},
            hidden_mounts=names("hidden"),
            signing_key="nokey" not in found,
            login=next(iter(names("login")), ""),
        )
    except (KeyError, ValueError, IndexError) as e:
        raise FailedPrecondition(f"{session.access.name}: the system cannot be recognised", field="target") from e
