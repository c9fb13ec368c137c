"""Reading what oscap writes: XCCDF results (ARF) as a stream, OVAL results as a small tree. XML only, never its words.

The files come from the target and are untrusted: no entities, no document types, bounded sizes.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.parsers import expat

from anneal_contracts.facts import Outcome, ScoreCounts
from anneal_runtime.errors import FailedPrecondition
from lxml import etree

from stig_rhel9.content import Check
from stig_rhel9.xccdf import Element, short_id

_XCCDF: Final = "http://checklists.nist.gov/xccdf/1.2"
R: Final = "{http://oval.mitre.org/XMLSchema/oval-results-5}"
_OVAL_TEST: Final = "http://oval.mitre.org/XMLSchema/oval-results-5 test"
_OUTCOME_BY_RESULT: Final[Mapping[str, Outcome]] = {
    "pass": Outcome.PASS,
    "fixed": Outcome.PASS,
    "fail": Outcome.FAIL,
    "error": Outcome.ERROR,
    "unknown": Outcome.ERROR,
    "notapplicable": Outcome.NOT_APPLICABLE,
}


class RuleResults:
    """Collects rule results from an XCCDF results document that is fed in pieces; memory stays flat."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.false_tests: set[str] = set()
        self._rule = ""
        self._text: list[str] | None = None
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = _refuse_doctype

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Takes the next piece. Raises FailedPrecondition for a document that is not well-formed."""
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as e:
            raise FailedPrecondition(f"the scan's results are not well-formed XML: {e}") from e

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == f"{_XCCDF} rule-result":
            self._rule = attributes.get("idref", "")
        elif name == f"{_XCCDF} result" and self._rule:
            self._text = []
        elif name == _OVAL_TEST and attributes.get("result") == "false":
            self.false_tests.add(attributes.get("test_id", ""))

    def _characters(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def _end(self, name: str) -> None:
        if name == f"{_XCCDF} rule-result":
            self._rule = ""
        elif name == f"{_XCCDF} result" and self._text is not None:
            result = "".join(self._text).strip()
            self._text = None
            if result != "notselected":
                self.outcomes[short_id(self._rule)] = _OUTCOME_BY_RESULT.get(result, Outcome.OTHER)


def _refuse_doctype(*_: Any) -> None:
    raise FailedPrecondition("the scan's results hold a document type declaration")


def score(outcomes: Iterable[Outcome]) -> ScoreCounts:
    """Counts by outcome."""
    counts = dict.fromkeys(Outcome, 0)
    for outcome in outcomes:
        counts[outcome] += 1
    return ScoreCounts(
        passed=counts[Outcome.PASS],
        fail=counts[Outcome.FAIL],
        error=counts[Outcome.ERROR],
        notapplicable=counts[Outcome.NOT_APPLICABLE],
        other=counts[Outcome.OTHER],
    )


def parse_oval_results(data: bytes) -> Element:
    """The tree of an OVAL results file. Raises FailedPrecondition."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as e:
        raise FailedPrecondition(f"the OVAL results are not well-formed XML: {e}") from e
    if root.tag != f"{R}oval_results":
        raise FailedPrecondition(f"the OVAL results begin with {root.tag}")
    return root


def definition_results(root: Element) -> dict[str, str]:
    """Definition id -> true, false, error, unknown, not evaluated, not applicable."""
    return {
        d.get("definition_id", ""): d.get("result", "unknown")
        for d in root.iterfind(f"{R}results/{R}system/{R}definitions/{R}definition")
    }


def verdict(check: Check, results: Mapping[str, str]) -> Outcome:
    """What OpenSCAP makes of the OVAL results for a rule: applicability first, then its definition.

    Raises FailedPrecondition when the results lack the rule's definition: no verdict is ever assumed.
    """
    if check.applicability is not None and _holds(check.applicability, results) is not True:
        return Outcome.NOT_APPLICABLE
    if check.definition not in results:
        raise FailedPrecondition(f"the OVAL results have no verdict on {check.definition}")
    result = results[check.definition]
    if result in ("true", "false"):
        # A vulnerability or patch definition is true when something is wrong.
        good = (result == "true") != (check.klass in ("vulnerability", "patch"))
        return Outcome.PASS if good != check.negate else Outcome.FAIL
    return Outcome.NOT_APPLICABLE if result == "not applicable" else Outcome.ERROR


def _holds(tree: Mapping[str, Any], results: Mapping[str, str]) -> bool | None:
    """True, False, or None for unknown, of an applicability tree."""
    if "definition" in tree:
        return {"true": True, "false": False}.get(results.get(str(tree["definition"]), "unknown"))
    parts = [_holds(part, results) for part in tree["of"]]
    decisive = tree["op"] == "OR"
    value: bool | None = None if None in parts else not decisive
    if decisive in parts:
        value = decisive
    return value if value is None else value != tree["negate"]
