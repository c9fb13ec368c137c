"""Verdicts come from the results' XML alone, and say what OpenSCAP would say."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anneal_contracts.facts import Outcome
from anneal_runtime.errors import FailedPrecondition
from anneal_skillkit.loader import Skill

if TYPE_CHECKING:
    from stig_rhel9.content import Check

RESULTS = Path(__file__).with_name("data") / "results.xml"
OS = {"definition": "os"}
NOT_CONTAINER = {"op": "AND", "negate": True, "of": [{"definition": "container"}]}
XCCDF = "http://checklists.nist.gov/xccdf/1.2"


def check(*, klass: str = "compliance", negate: bool = False, needs: object = None) -> "Check":
    from stig_rhel9.content import Check

    return Check(definition="d", klass=klass, negate=negate, applicability=needs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "klass", "negate", "outcome"),
    [
        ("true", "compliance", False, Outcome.PASS),
        ("false", "compliance", False, Outcome.FAIL),
        ("true", "compliance", True, Outcome.FAIL),
        ("false", "compliance", True, Outcome.PASS),
        ("true", "vulnerability", False, Outcome.FAIL),
        ("false", "patch", False, Outcome.PASS),
        ("error", "compliance", False, Outcome.ERROR),
        ("unknown", "compliance", True, Outcome.ERROR),
        ("not evaluated", "compliance", False, Outcome.ERROR),
        ("not applicable", "compliance", False, Outcome.NOT_APPLICABLE),
    ],
)
def test_a_definitions_result_becomes_the_rules_outcome(
    skill: Skill, result: str, klass: str, negate: bool, outcome: Outcome
) -> None:
    from stig_rhel9.results import verdict

    assert verdict(check(klass=klass, negate=negate), {"d": result}) is outcome


@pytest.mark.parametrize(
    ("os", "container", "outcome"),
    [
        ("true", "false", Outcome.PASS),
        ("true", "true", Outcome.NOT_APPLICABLE),
        ("false", "false", Outcome.NOT_APPLICABLE),
        ("error", "false", Outcome.NOT_APPLICABLE),
    ],
)
def test_a_rule_whose_platform_is_not_there_does_not_apply(
    skill: Skill, os: str, container: str, outcome: Outcome
) -> None:
    from stig_rhel9.results import verdict

    needs = {"op": "AND", "negate": False, "of": [OS, {"op": "OR", "negate": False, "of": [NOT_CONTAINER]}]}
    assert verdict(check(needs=needs), {"d": "true", "os": os, "container": container}) is outcome


def test_results_without_the_rules_definition_are_no_verdict(skill: Skill) -> None:
    from stig_rhel9.results import verdict

    with pytest.raises(FailedPrecondition):
        verdict(check(), {"other": "true"})


def test_a_failing_rule_full_of_the_word_pass_fails(skill: Skill) -> None:
    from stig_rhel9.evidence import explain
    from stig_rhel9.results import definition_results, parse_oval_results, verdict

    root = parse_oval_results(RESULTS.read_bytes())
    from stig_rhel9.content import Check

    rule = Check(definition="oval:t-pass:def:1", klass="compliance", negate=False, applicability=None)
    assert b"pass: minlen is long enough" in RESULTS.read_bytes()
    assert verdict(rule, definition_results(root)) is Outcome.FAIL
    evidence = explain(root, rule)
    assert "pass: minlen is long enough: false" in evidence
    assert "filepath=/tmp/anneal-demo-none" in evidence
    assert "subexpression greater than or equal 15" in evidence
    # The negated part holds and is no evidence.
    assert "motd" not in evidence


@pytest.mark.parametrize("data", [b"", b"pass", b"Definition d: true", b"<oval_results/>", RESULTS.read_bytes()[:-40]])
def test_what_is_no_results_xml_is_an_error_and_never_a_pass(skill: Skill, data: bytes) -> None:
    from stig_rhel9.results import parse_oval_results

    with pytest.raises(FailedPrecondition):
        parse_oval_results(data)


def _scan(*rows: tuple[str, str], doctype: str = "") -> bytes:
    rules = "".join(
        f'<rule-result idref="xccdf_org.ssgproject.content_rule_{name}"><result>{result}</result>'
        "<message>pass</message><check><check-content-ref/></check></rule-result>"
        for name, result in rows
    )
    return f'{doctype}<arf><TestResult xmlns="{XCCDF}">{rules}</TestResult></arf>'.encode()


def test_a_scan_is_read_rule_by_rule(skill: Skill) -> None:
    from stig_rhel9.results import score
    from stig_rhel9.scan import read_arf

    rows = [
        ("pass_rule", "fail"),
        ("b", "pass"),
        ("c", "notapplicable"),
        ("d", "notchecked"),
        ("e", "unknown"),
        ("f", "notselected"),
        ("g", "fixed"),
    ]
    outcomes = read_arf(gzip.compress(_scan(*rows))).outcomes
    assert outcomes["pass_rule"] is Outcome.FAIL
    assert "f" not in outcomes
    counts = score(outcomes.values())
    assert (counts.passed, counts.fail, counts.error, counts.notapplicable, counts.other) == (2, 1, 1, 1, 1)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no gzip",
        gzip.compress(_scan(("a", "pass")))[:-20],
        gzip.compress(_scan(("a", "pass"))[:-10]),
        gzip.compress(_scan(("a", "pass"), doctype='<!DOCTYPE x [<!ENTITY a "b">]>')),
    ],
)
def test_broken_scan_results_are_an_error(skill: Skill, packed: bytes) -> None:
    from stig_rhel9.scan import read_arf

    with pytest.raises(FailedPrecondition):
        read_arf(packed)
