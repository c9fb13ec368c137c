"""What an OVAL verdict rests on, in a few lines for people and prompts. It never decides anything."""

from collections.abc import Iterator
from typing import Final

from lxml import etree

from stig_rhel9.content import Check
from stig_rhel9.results import R, definition_results
from stig_rhel9.xccdf import Element, O

S: Final = "{http://oval.mitre.org/XMLSchema/oval-system-characteristics-5}"
_LIMIT: Final = 2400
_ITEMS: Final = 4
_VALUE_LIMIT: Final = 160
# Fields of collected items that say where, not what.
_DULL: Final = frozenset({"windows_view", "instance", "a_time", "c_time", "m_time"})


def explain(root: Element, check: Check) -> str:
    """The failing tests of the rule's definition: what was expected, what was found. Empty when nothing failed."""
    index = _Index(root)
    lines: list[str] = []
    for test in index.failing_tests(check.definition):
        lines += index.describe(test)
    if not lines and definition_results(root).get(check.definition) not in ("true", "false"):
        lines = [f"The definition {check.definition} could not be evaluated."]
    text = "\n".join(dict.fromkeys(lines))
    return text if len(text) <= _LIMIT else text[:_LIMIT] + "\n[... cut ...]"


def failing_objects(root: Element, check: Check) -> list[str]:
    """For each failing test, the literal texts of its object (paths, names), joined by blanks."""
    index = _Index(root)
    return [
        index.object_words(index.definition_of(t.get("test_id", ""))) for t in index.failing_tests(check.definition)
    ]


class _Index:
    def __init__(self, root: Element) -> None:
        self._by_id: dict[str, Element] = {}
        for element in root.iter():
            # The definitions come first; what was collected for them has the same ids.
            if isinstance(element.tag, str) and element.get("id", "").startswith("oval:"):
                self._by_id.setdefault(element.get("id", ""), element)
        system = f"{R}results/{R}system"
        self._tests = {t.get("test_id", ""): t for t in root.iterfind(f"{system}/{R}tests/{R}test")}
        self._definitions = {
            d.get("definition_id", ""): d for d in root.iterfind(f"{system}/{R}definitions/{R}definition")
        }
        self._items = {
            i.get("id", ""): i for data in root.iter(f"{S}system_data") for i in data if isinstance(i.tag, str)
        }

    def definition_of(self, oval_id: str) -> Element | None:
        return self._by_id.get(oval_id)

    def failing_tests(self, definition_id: str) -> Iterator[Element]:
        """Tests below a definition whose result pulls it towards false, through negations and extensions."""
        definition = self._definitions.get(definition_id)
        criteria = definition.find(f"{R}criteria") if definition is not None else None
        if criteria is not None:
            yield from self._walk(criteria, wanted=True)

    def _walk(self, node: Element, *, wanted: bool) -> Iterator[Element]:
        # A node's result has its own negation in it already.
        if node.get("result") == ("true" if wanted else "false"):
            return
        wanted = wanted != (node.get("negate") == "true")
        if node.tag == f"{R}criteria":
            for child in node:
                yield from self._walk(child, wanted=wanted)
        elif node.tag == f"{R}extend_definition":
            extended = self._definitions.get(node.get("definition_ref", ""))
            criteria = extended.find(f"{R}criteria") if extended is not None else None
            if criteria is not None:
                yield from self._walk(criteria, wanted=wanted)
        elif node.tag == f"{R}criterion":
            test = self._tests.get(node.get("test_ref", ""))
            if test is not None and test.get("result") != ("true" if wanted else "false"):
                yield test

    def describe(self, test: Element) -> list[str]:
        """A test in words."""
        definition = self._by_id.get(test.get("test_id", ""))
        if definition is None:
            return []
        lines = [f"- {definition.get('comment', '').strip() or test.get('test_id')}: {test.get('result')}"]
        if where := self.object_words(definition):
            lines.append(f"    looked at: {where}")
        lines += [f"    expected: {words}" for words in self._states(definition)]
        existence = definition.get("check_existence", "at_least_one_exists")
        found = [self._item(t.get("item_id", "")) for t in test.findall(f"{R}tested_item")]
        if found:
            lines += [f"    found: {words}" for words in found[:_ITEMS] if words]
            if len(found) > _ITEMS:
                lines.append(f"    and {len(found) - _ITEMS} more")
        else:
            lines.append("    found: nothing" if existence != "none_exist" else "    found: nothing, as wanted")
        return lines

    def object_words(self, definition: Element | None) -> str:
        """Where a test looks: the literal fields of its object."""
        if definition is None:
            return ""
        words = []
        for ref in definition.iter():
            target = self._by_id.get(ref.get("object_ref", "")) if isinstance(ref.tag, str) else None
            if target is not None:
                words += [self._field(field) for field in target if isinstance(field.tag, str)]
        return " ".join(word for word in words if word)[: 2 * _VALUE_LIMIT]

    def _states(self, definition: Element) -> Iterator[str]:
        for ref in definition.iter():
            state = self._by_id.get(ref.get("state_ref", "")) if isinstance(ref.tag, str) else None
            if state is not None:
                words = [self._field(field) for field in state if isinstance(field.tag, str)]
                yield ", ".join(word for word in words if word)

    def _field(self, field: Element) -> str:
        name = etree.QName(field).localname
        if name in _DULL or name in ("behaviors", "set", "filter"):
            return ""
        value = (field.text or "").strip()
        if not value and field.get("var_ref"):
            value = self._variable(field.get("var_ref", ""))
        operation = field.get("operation", "equals")
        how = "=" if operation == "equals" else f" {operation} "
        return f"{name}{how}{value[:_VALUE_LIMIT]}" if value else ""

    def _variable(self, variable_id: str) -> str:
        variable = self._by_id.get(variable_id)
        values = [] if variable is None else [v.text or "" for v in variable.findall(f"{O}value")]
        return " or ".join(values) or f"({variable_id.split('-', 1)[-1].split(':')[0]})"

    def _item(self, item_id: str) -> str:
        item = self._items.get(item_id)
        if item is None:
            return ""
        fields = [
            f"{etree.QName(f).localname}={(f.text or '').strip()[:_VALUE_LIMIT]}"
            for f in item
            if isinstance(f.tag, str) and (f.text or "").strip() and etree.QName(f).localname not in _DULL
        ]
        return ", ".join(fields)[: 3 * _VALUE_LIMIT]
