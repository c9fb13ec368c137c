"""Cutting OVAL down to what one rule needs: its definition, its platforms' definitions and all they refer to.

OpenSCAP spends nearly all of a single rule's time on loading the rest. The profile's values go in as constant
variables, so that one small file says everything.
"""

import copy
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from lxml import etree

from stig_rhel9.xccdf import ContentError, Element, O

_ID: Final = re.compile(r"oval:[\w.-]+:(?:def|tst|obj|ste|var):\d+")
_SECTIONS: Final = ("definitions", "tests", "objects", "states", "variables")


class OvalFile:
    """One OVAL component, indexed by id."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self.elements: dict[str, Element] = {e.get("id", ""): e for section in root for e in section if e.get("id")}

    def closure(self, ids: Collection[str]) -> list[str]:
        """These ids and all they refer to, in a stable order. Raises ContentError for an id that is not there."""
        seen: dict[str, None] = {}
        todo = list(ids)
        while todo:
            wanted = todo.pop()
            if wanted in seen:
                continue
            if wanted not in self.elements:
                raise ContentError(f"the content has no {wanted}")
            seen[wanted] = None
            for element in self.elements[wanted].iter():
                if isinstance(element.tag, str) and element.tag != f"{O}metadata":
                    for word in (*element.attrib.values(), element.text or ""):
                        todo += _ID.findall(str(word))
        return sorted(seen)


def definitions_of(tree: Mapping[str, Any] | None) -> set[str]:
    """The OVAL definitions that an applicability tree asks for."""
    if tree is None:
        return set()
    if "definition" in tree:
        return {str(tree["definition"])}
    return set().union(*(definitions_of(part) for part in tree["of"]))


def slim(
    checks: OvalFile,
    platforms: OvalFile,
    definition: str,
    applicability: Mapping[str, Any] | None,
    values: Mapping[str, str],
) -> bytes:
    """An OVAL file with one rule's definition and those of its platforms. values: OVAL variable id -> value."""
    chosen: dict[str, Element] = {i: checks.elements[i] for i in checks.closure([definition])}
    for i in platforms.closure(sorted(definitions_of(applicability))):
        element = platforms.elements[i]
        if i in chosen and _core(chosen[i]) != _core(element):
            raise ContentError(f"{i} means two things in one datastream")
        chosen[i] = element
    root = etree.Element(f"{O}oval_definitions", nsmap=dict(checks.root.nsmap))  # type: ignore[arg-type]
    generator = checks.root.find(f"{O}generator")
    if generator is not None:
        root.append(copy.deepcopy(generator))
    for name in _SECTIONS:
        own = [e for i, e in sorted(chosen.items()) if etree.QName(e.getparent()).localname == name]
        if own:
            section = etree.SubElement(root, f"{O}{name}")
            section.extend(_prepared(e, values) for e in own)
    etree.cleanup_namespaces(root)
    # OpenSCAP 1.3.7 crashes where two tags stand side by side without a blank between them.
    etree.indent(root, space="")
    return etree.tostring(root, encoding="utf-8", xml_declaration=True)


def _core(element: Element) -> bytes:
    """What an element means, without its metadata and layout."""
    twin = copy.deepcopy(element)
    for metadata in twin.findall(f"{O}metadata"):
        twin.remove(metadata)
    return re.sub(rb"\s+", b" ", etree.tostring(twin, method="c14n", exclusive=True)).strip()


def _prepared(element: Element, values: Mapping[str, str]) -> Element:
    """A copy without prose, and with its value where it is a variable that the profile sets."""
    twin = copy.deepcopy(element)
    twin.tail = None
    for metadata in twin.findall(f"{O}metadata"):
        title = metadata.findtext(f"{O}title") or ""
        metadata.clear()
        etree.SubElement(metadata, f"{O}title").text = title
    if twin.tag == f"{O}external_variable" and twin.get("id") in values:
        constant = etree.Element(f"{O}constant_variable", attrib={str(k): str(v) for k, v in twin.attrib.items()})
        etree.SubElement(constant, f"{O}value").text = values[twin.get("id", "")]
        return constant
    return twin
