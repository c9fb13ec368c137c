"""Reading the XCCDF part of a datastream for one profile: selected rules, texts, values, fixes, applicability.

Resolves what the profile (and a tailoring file) says in the way OpenSCAP does. Used by compile.py only: it needs the
whole datastream in memory.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lxml import etree

X: Final = "{http://checklists.nist.gov/xccdf/1.2}"
H: Final = "{http://www.w3.org/1999/xhtml}"
O: Final = "{http://oval.mitre.org/XMLSchema/oval-definitions-5}"  # noqa: E741 - the usual name of this namespace
CPE_DICT: Final = "{http://cpe.mitre.org/dictionary/2.0}"
CPE_LANG: Final = "{http://cpe.mitre.org/language/2.0}"
OCIL: Final = "{http://scap.nist.gov/schema/ocil/2.0}"
RULE_PREFIX: Final = "xccdf_org.ssgproject.content_rule_"
VALUE_PREFIX: Final = "xccdf_org.ssgproject.content_value_"
OVAL_SYSTEM: Final = "http://oval.mitre.org/XMLSchema/oval-definitions-5"

Element = etree._Element


class ContentError(Exception):
    """The content or the tailoring file cannot be used; field says which of the two."""

    def __init__(self, message: str, *, field: str = "content") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a profile selects: rules in document order, and the value of every Value."""

    profile_id: str
    title: str
    rules: tuple[Element, ...]
    values: dict[str, str] = field(default_factory=dict)


def parse(data: bytes, *, field: str = "content") -> Element:
    """Parses XML without entities, network or DTD. Raises ContentError."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as e:
        raise ContentError(f"not well-formed XML: {e}", field=field) from e
    if root.getroottree().docinfo.internalDTD is not None:
        raise ContentError("a document type declaration is not allowed", field=field)
    return root


def short_id(rule_id: str) -> str:
    """sshd_disable_root_login for xccdf_org.ssgproject.content_rule_sshd_disable_root_login."""
    return rule_id.removeprefix(RULE_PREFIX)


def short_value_id(value_id: str) -> str:
    """var_accounts_user_umask for xccdf_org.ssgproject.content_value_var_accounts_user_umask."""
    return value_id.removeprefix(VALUE_PREFIX)


def select(benchmark: Element, profile: str, tailoring: Element | None) -> Selection:
    """Resolves the profile as OpenSCAP does. Raises ContentError."""
    chain = _profile_chain(benchmark, profile, tailoring)
    chosen: dict[str, bool] = {}
    refined: dict[str, str] = {}
    values: dict[str, str] = {}
    for step in chain:
        for element in step:
            idref = element.get("idref", "")
            if element.tag == f"{X}select":
                chosen[idref] = element.get("selected") == "true"
            elif element.tag == f"{X}refine-value" and element.get("selector") is not None:
                refined[idref] = element.get("selector", "")
                values.pop(idref, None)
            elif element.tag == f"{X}set-value":
                values[idref] = element.text or ""
    if tailoring is not None:
        _refuse_unknown(benchmark, {*chosen, *refined, *values})
    for value in benchmark.iter(f"{X}Value"):
        values.setdefault(value.get("id", ""), _value(value, refined.get(value.get("id", ""))))
    title = chain[-1].findtext(f"{X}title") or ""
    rules = _compatible([r for r in benchmark.iter(f"{X}Rule") if _selected(r, chosen)])
    return Selection(profile_id=chain[-1].get("id", ""), title=" ".join(title.split()), rules=rules, values=values)


def _profile_chain(benchmark: Element, name: str, tailoring: Element | None) -> list[Element]:
    """The profile and what it extends, base first."""
    own = {p.get("id", ""): p for p in benchmark.iter(f"{X}Profile")}
    extra: dict[str, Element] = {}
    if tailoring is not None:
        if tailoring.tag != f"{X}Tailoring":
            raise ContentError("the root element is not an XCCDF 1.2 Tailoring", field="tailoring")
        extra = {p.get("id", ""): p for p in tailoring.iter(f"{X}Profile")}
        if not extra:
            raise ContentError("it has no Profile", field="tailoring")
    current = _find_profile(name, own, extra)
    chain = [current]
    while base := current.get("extends"):
        # A tailoring profile may extend the profile of the same id that it shadows.
        found = own.get(base) if current in extra.values() else (extra.get(base, own.get(base)))
        if found is None or found in chain:
            raise ContentError(f"profile {current.get('id')} extends unknown {base}", field="tailoring")
        chain.insert(0, current := found)
    return chain


def _find_profile(name: str, own: dict[str, Element], extra: dict[str, Element]) -> Element:
    def matches(profile_id: str | None) -> bool:
        return profile_id is not None and (profile_id == name or profile_id.endswith(f"_profile_{name}"))

    if extra:
        hits = [p for i, p in extra.items() if matches(i)] or [p for p in extra.values() if matches(p.get("extends"))]
        if len(hits) != 1:
            raise ContentError(f"{len(hits)} profiles in it are or extend {name!r}; one is wanted", field="tailoring")
        return hits[0]
    hits = [p for i, p in own.items() if matches(i)]
    if len(hits) != 1:
        known = ", ".join(sorted(i.rpartition("_profile_")[2] for i in own))
        raise ContentError(f"unknown profile {name!r}; the content has: {known}", field="profile")
    return hits[0]


def _refuse_unknown(benchmark: Element, ids: set[str]) -> None:
    known = {e.get("id") for e in benchmark.iter(f"{X}Rule", f"{X}Group", f"{X}Value")}
    known |= {e.get("cluster-id") for e in benchmark.iter(f"{X}Rule", f"{X}Group")}
    if missing := sorted(ids - known):
        raise ContentError(f"it names {missing[0]}, which the content does not have", field="tailoring")


def _selected(rule: Element, chosen: dict[str, bool]) -> bool:
    for item in (rule, *rule.iterancestors(f"{X}Group")):
        default = item.get("selected", "true") == "true"
        cluster = item.get("cluster-id", "")
        if not chosen.get(item.get("id", ""), chosen.get(cluster, default) if cluster else default):
            return False
    return True


def _compatible(rules: list[Element]) -> tuple[Element, ...]:
    """OpenSCAP drops a selected rule that conflicts with another selected one, or lacks all of what it requires."""
    ids = {r.get("id") for r in rules}

    def stays(rule: Element) -> bool:
        fought = {e.get("idref") for e in rule.findall(f"{X}conflicts")}
        needed = [set((e.get("idref") or "").split()) for e in rule.findall(f"{X}requires")]
        return not fought & ids and all(one & ids for one in needed)

    return tuple(r for r in rules if stays(r))


def _value(value: Element, selector: str | None) -> str:
    texts = {v.get("selector", ""): v.text or "" for v in value.findall(f"{X}value")}
    if selector is not None and selector in texts:
        return texts[selector]
    return texts.get("", next(iter(texts.values()), ""))


def text(element: Element | None, values: dict[str, str]) -> str:
    """Plain text of a description-like element: tags dropped, paragraphs kept, values put in."""
    if element is None:
        return ""
    raw = "".join(_pieces(element, values))
    lines = [line.rstrip() for line in raw.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _pieces(element: Element, values: dict[str, str]) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag == f"{X}sub":
            yield values.get(child.get("idref", ""), "")
        elif child.tag in (f"{H}br", f"{H}p", f"{H}pre", f"{H}ul", f"{H}ol", f"{H}table", f"{H}tr"):
            yield "\n"
            yield from _pieces(child, values)
            yield "\n" if child.tag != f"{H}br" else ""
        elif child.tag == f"{H}li":
            yield "\n- "
            yield from _pieces(child, values)
        else:
            yield from _pieces(child, values)
        yield child.tail or ""


def fix_text(fix: Element, values: dict[str, str]) -> str:
    """A fix's script with its values put in, byte for byte as OpenSCAP would run it."""
    parts = [fix.text or ""]
    for child in fix:
        if child.tag != f"{X}sub" or child.get("idref") not in values:
            raise ContentError(f"fix {fix.get('id')} holds {child.tag} {child.get('idref')}, which cannot be resolved")
        parts += [values[child.get("idref", "")], child.tail or ""]
    return "".join(parts)


def category(rule: Element) -> str:
    """A human word for the rule's place in the benchmark: the group below `System Settings` or `Services`."""
    titles = [g.findtext(f"{X}title") or "" for g in rule.iterancestors(f"{X}Group")][::-1]
    words = titles[1] if len(titles) > 1 else (titles[0] if titles else "other")
    return _CATEGORY_WORDS.get(words, words)


_CATEGORY_WORDS: Final = {
    "System Accounting with auditd": "Auditing",
    "File Permissions and Masks": "Files and mounts",
    "Account and Access Control": "Accounts and access",
    "Installing and Maintaining Software": "Software",
    "Network Configuration and Firewalls": "Network and firewall",
    "SSH Server": "SSH",
    "Cron and At Daemons": "Cron",
    "Configure Syslog": "Logging",
    "GRUB2 bootloader configuration": "Boot loader",
    "NFS and RPC": "NFS",
    "Network Time Protocol": "Time",
    "System Security Services Daemon": "SSSD",
    "Obsolete Services": "Obsolete services",
    "Mail Server Software": "Mail",
    "USBGuard daemon": "USB",
    "X Window System": "Desktop",
    "Application Whitelisting Daemon": "Application control",
    "FTP Server": "FTP",
    "Base Services": "Base services",
    "Network Routing": "Network and firewall",
    "Hardware RNG Entropy Gatherer Daemon": "Entropy",
}

_FAMILY_BY_HREF: Final = (
    ("/stigs/cci", "CCI"),
    ("_facet_stigs", "STIG"),
    ("800-53", "NIST 800-53"),
    ("800-171", "NIST 800-171"),
    ("cisecurity", "CIS"),
    ("pcisecurity", "PCI-DSS"),
    ("niap-ccevs", "OSPP"),
)


def references(rule: Element) -> dict[str, list[str]]:
    """CCE, CCI, SRG, STIG, NIST and some more, each with its ids."""
    found: dict[str, list[str]] = {}
    for ident in rule.findall(f"{X}ident"):
        if (ident.text or "").startswith("CCE-"):
            found.setdefault("CCE", []).append(ident.text or "")
    for reference in rule.findall(f"{X}reference"):
        word = reference.text or ""
        href = reference.get("href", "")
        family = "SRG" if word.startswith("SRG-") else next((f for part, f in _FAMILY_BY_HREF if part in href), "")
        if family and word not in found.setdefault(family, []):
            found[family].append(word)
    return found


class Platforms:
    """The conditions under which rules apply, as trees over OVAL definitions of the CPE dictionary."""

    def __init__(self, benchmark: Element, dictionary: Element) -> None:
        self._definition_by_name = {
            item.get("name", ""): (check.text or "").strip()
            for item in dictionary.iter(f"{CPE_DICT}cpe-item")
            if (check := item.find(f"{CPE_DICT}check")) is not None
        }
        spec = benchmark.find(f"{CPE_LANG}platform-specification")
        platforms: Iterable[Element] = spec if spec is not None else ()
        self._tree_by_id = {p.get("id", ""): p.find(f"{CPE_LANG}logical-test") for p in platforms}

    def applicability(self, rule: Element) -> dict[str, Any] | None:
        """Every item on the way to the rule must have one of its platforms; None: always applies."""
        needs: list[dict[str, Any]] = []
        for item in (rule, *rule.iterancestors(f"{X}Group", f"{X}Benchmark")):
            names = [p.get("idref", "") for p in item.findall(f"{X}platform")]
            if names:
                tree = {"op": "OR", "negate": False, "of": [self._platform(name) for name in names]}
                needs += [tree] if tree not in needs else []
        return {"op": "AND", "negate": False, "of": needs} if needs else None

    def _platform(self, name: str) -> dict[str, Any]:
        if not name.startswith("#"):
            return self._fact(name)
        test = self._tree_by_id.get(name[1:])
        if test is None:
            raise ContentError(f"unknown platform {name}")
        return self._test(test)

    def _test(self, test: Element) -> dict[str, Any]:
        of = [self._test(e) if e.tag == f"{CPE_LANG}logical-test" else self._fact(e.get("name", "")) for e in test]
        return {"op": test.get("operator", "AND").upper(), "negate": test.get("negate") == "true", "of": of}

    def _fact(self, name: str) -> dict[str, Any]:
        definition = self._definition_by_name.get(name)
        if definition is None:
            raise ContentError(f"the CPE dictionary has no {name}")
        return {"definition": definition}
