"""Rules that no fix can mend on a target, each with the honest reason.

A rule is left out only where its OVAL cannot become true while certain tests stay false: a kernel parameter that is
read-only in this machine and wrong, a mount point that wants a file system of its own, a package that no repository
offers, a daemon that cannot run here. Beside them stand the few rules whose reason OVAL does not show. All else is
worth a try.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from lxml import etree

from stig_rhel9.content import Check
from stig_rhel9.facts import Facts
from stig_rhel9.xccdf import Element, O

# A temporary file system is an honest answer for /tmp and /dev/shm; the rest must outlive a boot.
_MAKEABLE_MOUNTS: Final = frozenset({"/tmp", "/dev/shm"})  # noqa: S108 - names of mount points, no files of ours
# The rpm database keeps imported keys under this name; it is no package.
_KEYS: Final = "gpg-pubkey"
_LOGIN_RULES: Final[Mapping[str, frozenset[str]]] = {
    "sudo_remove_nopasswd": frozenset({"nopasswd"}),
    "sudo_remove_no_authenticate": frozenset({"noauthenticate"}),
    "sudo_require_authentication": frozenset({"nopasswd", "noauthenticate"}),
}
_LOGIN_REASON: Final = (
    "the login that anneal uses would lose sudo: give it a way without a password that the rule allows, "
    "or exclude the rule"
)
_KEY_REASON: Final = (
    "Red Hat's signing key is not on this machine: put it at /etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"
)


class Needs:
    """What rules hang on that their OVAL does not show, by the manifest: packages, a daemon, a person's word."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._packages = _table(settings, "needs_packages")
        self._units = _table(settings, "needs_units")
        self._person = _table(settings, "needs_person")

    def packages(self, rule_id: str) -> list[str]:
        """The packages that a rule needs, all of them."""
        groups = [names for glob, names in self._packages.items() if fnmatchcase(rule_id, glob)]
        return sorted({str(name) for group in groups if isinstance(group, list) for name in group})

    def reason(self, rule_id: str, facts: Facts) -> str:
        """Why the rule cannot hold here, as far as it lies outside its OVAL; empty: nothing known."""
        if facts.login in _LOGIN_RULES.get(rule_id, ()):
            return _LOGIN_REASON
        if rule_id == "ensure_redhat_gpgkey_installed" and not facts.signing_key:
            return _KEY_REASON
        if rule_id == "mount_option_nodev_nonroot_local_partitions" and facts.hidden_mounts:
            where = " and ".join(sorted(facts.hidden_mounts))
            return f"a mount at {where} lacks nodev and lies hidden under another mount, where nothing can change it"
        if missing := [name for name in self.packages(rule_id) if name in facts.unoffered]:
            return _unoffered(missing)
        unit = str(self._units.get(rule_id, ""))
        if unit in facts.dead_units:
            return _cannot_run(unit, facts)
        return str(self._person.get(rule_id, ""))


def _table(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    table = settings.get(name)
    return table if isinstance(table, dict) else {}


def _cannot_run(unit: str, facts: Facts) -> str:
    return f"{unit} cannot run in this machine: {facts.dead_units[unit]}"


def _unoffered(names: Collection[str]) -> str:
    return f"no enabled repository offers {' and '.join(names)}, without which the rule cannot hold"


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

    def packages(self) -> dict[str, str]:
        """Test id -> package, of the tests that want one installed."""
        found = self._objects("rpminfo_test", "rpminfo_object", "name")
        return {test: name for test, name in found.items() if name != _KEYS and self._wants_existence(test)}

    def units(self) -> dict[str, str]:
        """Test id -> regular expression over unit names, of the tests that want one running."""
        found: dict[str, str] = {}
        for test, place in self._fields("systemdunitproperty_test", "systemdunitproperty_object", "unit"):
            wanted = [self._literal(v) for state in self._states(test) for v in state if _local(v) == "value"]
            if wanted == ["active"] and (place.text or "").strip():
                text = (place.text or "").strip()
                found[test] = text if place.get("operation") == "pattern match" else f"^{re.escape(text)}$"
        return found

    def blocked(self, facts: Facts, false_tests: Collection[str]) -> str:
        """The reason why no fix can make the rule hold on this machine; empty: one might."""
        reasons = {test: why for test, why in self._reasons(facts) if test in false_tests}
        if not reasons or self._possible(self._check.definition, reasons)[not self._check.negate]:
            return ""
        return "; ".join(dict.fromkeys(reasons.values()))

    def _reasons(self, facts: Facts) -> Iterator[tuple[str, str]]:
        """Tests that will not change from false to true here, and why."""
        for test, name in self.sysctls().items():
            if name in facts.fixed_sysctls:
                yield test, f"the kernel parameter {name} is read-only in this machine ({facts.virtualization})"
            elif name in facts.absent_sysctls:
                yield test, f"there is no kernel parameter {name} in this machine ({facts.virtualization})"
        for test, mount in self.mounts().items():
            if mount not in facts.mounts | _MAKEABLE_MOUNTS:
                yield test, f"{mount} is not a file system of its own, and making one needs a disk for it"
        for test, name in self.packages().items():
            if name in facts.unoffered:
                yield test, _unoffered([name])
        for test, pattern in self.units().items():
            for unit in facts.dead_units:
                if re.search(pattern, unit):
                    yield test, _cannot_run(unit, facts)

    def _objects(self, kind: str, object_kind: str, field: str) -> dict[str, str]:
        return {
            test: value
            for test, place in self._fields(kind, object_kind, field)
            if place.get("operation", "equals") == "equals" and (value := self._literal(place))
        }

    def _fields(self, kind: str, object_kind: str, field: str) -> Iterator[tuple[str, Element]]:
        """Test id and a field of its object, of all tests of a kind."""
        for test_id, test in self._by_id.items():
            if _local(test) != kind:
                continue
            for ref in test:
                target = self._by_id.get(ref.get("object_ref", ""))
                if target is not None and _local(target) == object_kind:
                    yield from ((test_id, place) for place in target if _local(place) == field)

    def _states(self, test: str) -> list[Element]:
        refs = [ref.get("state_ref", "") for ref in self._by_id[test]]
        return [self._by_id[ref] for ref in refs if ref in self._by_id]

    def _wants_existence(self, test: str) -> bool:
        return self._by_id[test].get("check_existence", "at_least_one_exists") in ("at_least_one_exists", "all_exist")

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


def _local(element: Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""
