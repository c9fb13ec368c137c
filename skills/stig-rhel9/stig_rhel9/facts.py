"""Facts of a target, and the rules that no fix can mend there: each with the honest reason.

A rule is left out only where its OVAL cannot become true while certain tests stay false: a kernel parameter that is
read-only in this machine and wrong, or a mount point that wants a file system of its own. All else is worth a try.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anneal_runtime.errors import FailedPrecondition
from anneal_skillkit.interfaces import TargetSession
from anneal_skillkit.ssh import checked
from lxml import etree

from stig_rhel9.content import Check, Content
from stig_rhel9.xccdf import Element, O

# A temporary file system is an honest answer for /tmp and /dev/shm; the rest must outlive a boot.
_MAKEABLE_MOUNTS: Final = frozenset({"/tmp", "/dev/shm"})  # noqa: S108 - names of mount points, no files of ours

_PROBE: Final = r"""
. /etc/os-release 2>/dev/null
printf 'os\t%s\t%s\n' "${ID:-unknown}" "${VERSION_ID:-unknown}"
printf 'release\t%s\n' "$(rpm -q --qf '%{NAME}-%{VERSION}' redhat-release 2>/dev/null | head -1)"
printf 'arch\t%s\n' "$(uname -m)"
printf 'virtualization\t%s\n' "$(systemd-detect-virt 2>/dev/null || echo none)"
while read -r _ mount _; do printf 'mount\t%s\n' "$mount"; done </proc/mounts
while IFS= read -r name; do
    path=/proc/sys/$(printf %s "$name" | tr . /)
    [ ! -e "$path" ] || [ -w "$path" ] || printf 'readonly\t%s\n' "$name"
    [ -e "$path" ] || printf 'absent\t%s\n' "$name"
done
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one probe found. fixed_sysctls, absent_sysctls: kernel parameters that cannot be set, are not there."""

    os_id: str
    os_version: str
    release: str
    arch: str
    virtualization: str
    mounts: frozenset[str]
    fixed_sysctls: frozenset[str]
    absent_sysctls: frozenset[str]

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


async def probe(session: TargetSession, sysctls: Collection[str]) -> Facts:
    """One exec that gathers all facts. Raises FailedPrecondition, TargetUnreachable."""
    names = "".join(f"{name}\n" for name in sorted(sysctls)).encode()
    done = checked(session.access.name, await session.run(["sh", "-c", _PROBE], stdin=names), "looking at the system")
    found: dict[str, list[list[str]]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, *values = line.split("\t")
        found.setdefault(key, []).append(values)
    try:
        ((os_id, os_version),) = found["os"]
        return Facts(
            os_id=os_id,
            os_version=os_version,
            release=found["release"][0][0],
            arch=found["arch"][0][0],
            virtualization=found["virtualization"][0][0],
            mounts=frozenset(values[0] for values in found.get("mount", [])),
            fixed_sysctls=frozenset(values[0] for values in found.get("readonly", [])),
            absent_sysctls=frozenset(values[0] for values in found.get("absent", [])),
        )
    except (KeyError, ValueError, IndexError) as e:
        raise FailedPrecondition(f"{session.access.name}: the system cannot be recognised", field="target") from e


class Fixability:
    """One rule's cut-down OVAL, asked whether it could ever hold."""

    def __init__(self, oval: bytes, check: Check) -> None:
        root = etree.fromstring(oval, etree.XMLParser(resolve_entities=False, no_network=True))
        self._by_id: dict[str, Element] = {
            e.get("id", ""): e for e in root.iter() if isinstance(e.tag, str) and e.get("id")
        }
        self._check = check

    def sysctls(self) -> dict[str, str]:
        """Test id -> kernel parameter, of the tests that look at the running kernel."""
        return self._objects("sysctl_test", "sysctl_object", "name")

    def mounts(self) -> dict[str, str]:
        """Test id -> mount point, of the tests that want something of a mounted file system."""
        return self._objects("partition_test", "partition_object", "mount_point")

    def blocked(self, facts: Facts, false_tests: Collection[str]) -> str:
        """The reason why no fix can make the rule hold on this machine; empty: one might."""
        reasons: dict[str, str] = {}
        for test, name in self.sysctls().items():
            if test in false_tests and name in facts.fixed_sysctls:
                reasons[test] = f"the kernel parameter {name} is read-only in this machine ({facts.virtualization})"
            elif test in false_tests and name in facts.absent_sysctls:
                reasons[test] = f"there is no kernel parameter {name} in this machine ({facts.virtualization})"
        for test, mount in self.mounts().items():
            if test in false_tests and mount not in facts.mounts | _MAKEABLE_MOUNTS:
                reasons[test] = f"{mount} is not a file system of its own, and making one needs a disk for it"
        if not reasons or self._possible(self._check.definition, reasons)[not self._check.negate]:
            return ""
        return "; ".join(dict.fromkeys(reasons.values()))

    def _objects(self, kind: str, object_kind: str, field: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for test_id, test in self._by_id.items():
            if etree.QName(test).localname != kind:
                continue
            for ref in test:
                target = self._by_id.get(ref.get("object_ref", ""))
                if target is not None and etree.QName(target).localname == object_kind:
                    place = next((f for f in target if etree.QName(f).localname == field), None)
                    if (
                        place is not None
                        and place.get("operation", "equals") == "equals"
                        and (value := self._literal(place))
                    ):
                        found[test_id] = value
        return found

    def _literal(self, field: Element | None) -> str:
        if field is None or field.get("operation", "equals") != "equals":
            return ""
        if field.text and field.text.strip():
            return field.text.strip()
        variable = self._by_id.get(field.get("var_ref", ""))
        values = [] if variable is None else variable.findall(f"{O}value")
        return (values[0].text or "").strip() if len(values) == 1 else ""

    def _possible(self, definition: str, fixed: Mapping[str, Any]) -> tuple[bool, bool]:
        """(can be false, can be true) of a definition while the fixed tests stay false."""
        element = self._by_id.get(definition)
        criteria = element.find(f"{O}criteria") if element is not None else None
        return self._node(criteria, fixed) if criteria is not None else (True, True)

    def _node(self, node: Element, fixed: Mapping[str, Any]) -> tuple[bool, bool]:
        if node.tag == f"{O}criterion":
            can = (True, node.get("test_ref") not in fixed)
        elif node.tag == f"{O}extend_definition":
            can = self._possible(node.get("definition_ref", ""), fixed)
        else:
            parts = [self._node(child, fixed) for child in node if isinstance(child.tag, str)]
            match node.get("operator", "AND"):
                case "AND":
                    can = (any(p[0] for p in parts), all(p[1] for p in parts))
                case "OR":
                    can = (all(p[0] for p in parts), any(p[1] for p in parts))
                case _:
                    can = (True, True)
        return (can[1], can[0]) if node.get("negate") == "true" else can
