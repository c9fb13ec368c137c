"""Compiles a datastream for one profile into a folder of small files. Runs in a process of its own.

    python -m stig_rhel9.compile DATASTREAM PROFILE OUT [TAILORING]

Parsing takes some 300 MB for a second or two; the services read only the small files that come out. OUT appears whole
or not at all. A failure is one JSON line on standard error, {"field", "message"}, and exit code 2.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from stig_rhel9 import oval, xccdf
from stig_rhel9.xccdf import OCIL, ContentError, Element, X

# Part of the cache's key: raise it when what is written changes.
FORMAT: Final = 4
_FIX_KIND: Final = {"urn:xccdf:fix:script:sh": "bash", "urn:xccdf:fix:script:ansible": "ansible"}


class Compiler:
    """One datastream and profile, on their way into the folder."""

    def __init__(self, datastream: Element, profile: str, tailoring: Element | None) -> None:
        benchmark = next(datastream.iter(f"{X}Benchmark"), None)
        if benchmark is None:
            raise ContentError("it has no XCCDF 1.2 benchmark")
        self.benchmark = benchmark
        self.selection = xccdf.select(benchmark, profile, tailoring)
        dictionary, self.checks, self.platform_checks = _components(datastream)
        self.platforms = xccdf.Platforms(benchmark, dictionary)
        self.questions = _questions(datastream)
        self.exports = self._all_exports()

    def index(self) -> dict[str, Any]:
        """What all rules have in common."""
        return {
            "format": FORMAT,
            "benchmark": self.benchmark.get("id", ""),
            "benchmark_version": (self.benchmark.findtext(f"{X}version") or "").strip(),
            "profile": self.selection.profile_id,
            "profile_title": self.selection.title,
        }

    def rule(self, rule: Element) -> tuple[dict[str, Any], bytes]:
        """A rule's record, and its cut-down OVAL (empty: it can be judged by a scan only)."""
        values = self.selection.values
        fixes = {kind: fix for fix in rule.findall(f"{X}fix") if (kind := _FIX_KIND.get(fix.get("system", "")))}
        record: dict[str, Any] = {
            "id": xccdf.short_id(rule.get("id", "")),
            "full_id": rule.get("id", ""),
            "title": " ".join((rule.findtext(f"{X}title") or "").split()),
            "severity": rule.get("severity", "unknown"),
            "category": xccdf.category(rule),
            "description": xccdf.text(rule.find(f"{X}description"), values),
            "rationale": xccdf.text(rule.find(f"{X}rationale"), values),
            "warnings": [xccdf.text(w, values) for w in rule.findall(f"{X}warning")],
            "references": xccdf.references(rule),
            "fixes": {kind: _fix(fix, values) for kind, fix in fixes.items()},
            "check_text": "",
            "check": None,
        }
        content = b""
        for check in rule.findall(f"{X}check"):
            ref = check.find(f"{X}check-content-ref")
            name = ref.get("name", "") if ref is not None else ""
            if check.get("system") == xccdf.OVAL_SYSTEM and name in self.checks.elements:
                record["check"], content = self._check(rule, check, name)
            elif name in self.questions:
                record["check_text"] = self.questions[name]
        return record, content

    def _check(self, rule: Element, check: Element, definition: str) -> tuple[dict[str, Any], bytes]:
        applicability = self.platforms.applicability(rule)
        exports = {**self.exports, **self._exports(check)}
        content = oval.slim(self.checks, self.platform_checks, definition, applicability, exports)
        how = {
            "definition": definition,
            "class": self.checks.elements[definition].get("class", "compliance"),
            "negate": check.get("negate") == "true",
            "applicability": applicability,
        }
        return how, content

    def _exports(self, check: Element) -> dict[str, str]:
        return {
            e.get("export-name", ""): self.selection.values[e.get("value-id", "")]
            for e in check.findall(f"{X}check-export")
            if e.get("value-id") in self.selection.values
        }

    def _all_exports(self) -> dict[str, str]:
        """Some definitions use a variable that another rule's check exports."""
        together: dict[str, str] = {}
        for rule in self.selection.rules:
            for check in rule.findall(f"{X}check"):
                together.update(self._exports(check))
        return together


def _components(datastream: Element) -> tuple[Element, oval.OvalFile, oval.OvalFile]:
    dictionary = next(datastream.iter("{http://cpe.mitre.org/dictionary/2.0}cpe-list"), None)
    files = list(datastream.iter(f"{xccdf.O}oval_definitions"))
    if dictionary is None or len(files) < 2:
        raise ContentError("it lacks the CPE dictionary or one of the OVAL components")
    wanted = {(c.text or "").strip() for c in dictionary.iter("{http://cpe.mitre.org/dictionary/2.0}check")}
    indexed = sorted((oval.OvalFile(f) for f in files), key=lambda f: len(f.elements))
    platform_checks = next((f for f in indexed if wanted <= f.elements.keys()), None)
    if platform_checks is None:
        raise ContentError("no OVAL component has all definitions of the CPE dictionary")
    return dictionary, indexed[-1], platform_checks


def _questions(datastream: Element) -> dict[str, str]:
    """OCIL questionnaire id -> the words of its question."""
    words = {
        q.get("id", ""): "\n".join(
            line.strip() for line in (q.findtext(f"{OCIL}question_text") or "").strip().splitlines()
        )
        for q in datastream.iter(f"{OCIL}boolean_question")
    }
    question_by_action = {
        a.get("id", ""): a.get("question_ref", "") for a in datastream.iter(f"{OCIL}boolean_question_test_action")
    }
    return {
        q.get("id", ""): words.get(question_by_action.get((ref.text or "").strip(), ""), "")
        for q in datastream.iter(f"{OCIL}questionnaire")
        if (ref := q.find(f"{OCIL}actions/{OCIL}test_action_ref")) is not None
    }


def _fix(fix: Element, values: dict[str, str]) -> dict[str, Any]:
    return {
        "text": xccdf.fix_text(fix, values),
        "reboot": fix.get("reboot") == "true",
        "disruption": fix.get("disruption", "unknown"),
        "complexity": fix.get("complexity", "unknown"),
        "strategy": fix.get("strategy", "unknown"),
    }


def write(compiler: Compiler, out: Path, extra: dict[str, str]) -> None:
    """Writes the folder, and makes it appear under its name when it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=out.parent))
    try:
        (new / "rules").mkdir()
        (new / "oval").mkdir()
        brief: dict[str, dict[str, Any]] = {}
        for element in compiler.selection.rules:
            record, content = compiler.rule(element)
            name = record["id"]
            (new / "rules" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
            if content:
                (new / "oval" / f"{name}.xml").write_bytes(content)
            brief[name] = {key: record[key] for key in ("full_id", "title", "severity", "category")}
        values = {xccdf.short_value_id(name): value for name, value in compiler.selection.values.items()}
        (new / "values.json").write_text(json.dumps(values), encoding="utf-8")
        (new / "index.json").write_text(json.dumps({**compiler.index(), **extra, "rules": brief}), encoding="utf-8")
        try:
            os.rename(new, out)
        except OSError:
            if not (out / "index.json").is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def main(argv: list[str]) -> int:
    datastream, profile, out, *rest = argv
    try:
        raw = Path(datastream).read_bytes()
        tailored = Path(rest[0]).read_bytes() if rest else b""
        digests = {
            "content_sha256": hashlib.sha256(raw).hexdigest(),
            "tailoring_sha256": hashlib.sha256(tailored).hexdigest() if tailored else "",
        }
        root = xccdf.parse(raw)
        del raw
        tailoring = xccdf.parse(tailored, field="tailoring") if tailored else None
        write(Compiler(root, profile, tailoring), Path(out), digests)
    except (ContentError, OSError) as e:
        print(json.dumps({"field": getattr(e, "field", "content"), "message": str(e)}), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
