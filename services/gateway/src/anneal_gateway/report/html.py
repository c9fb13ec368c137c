"""The page a person reads: one file with no script, no picture and no link to elsewhere.

It shows what the document says and words it; it computes no fact of its own. The template engine escapes all text.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from anneal.evaluator.v1.evaluator_pb2 import Baseline
from anneal.supervisor.v1.supervisor_pb2 import VerifyRunResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from anneal_gateway.report import words
from anneal_gateway.report.document import Document, counts, held_back


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What the page shows beside the document. scripts: blob -> exact script."""

    scripts: Mapping[str, str] = field(default_factory=dict)
    baseline: Baseline | None = None
    verified: VerifyRunResponse | None = None


# Stories in the order in which a person wants them: what is left to do first.
_ORDER = ("active", "waiting", "escalated", "deferred", "skipped", "queued", "completed")
_SEVERITIES = ("high", "medium", "low", "unknown")
# Characters that change how the text around them reads: an auditor must see them.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def render_html(document: Document, extras: Extras) -> str:
    """The whole page as text."""
    bars = _bars(document, extras.baseline)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            d=document,
            bars=bars,
            by_name={bar["name"]: bar for bar in bars},
            waffle=_waffle(document["items"]),
            legend=_legend(document["items"]),
            stories=_stories(document["items"]),
            rungs=_rungs(document["by_rung"]),
            scripts=extras.scripts,
            baseline=extras.baseline,
            verified=extras.verified,
            titles={item["id"]: item["title"] for item in document["items"]},
            words=words,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("anneal_gateway.report"),
        autoescape=True,
        undefined=StrictUndefined,
        # Runs before the escaping, on everything that a template prints.
        finalize=lambda value: plain(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(anchor=anchor, seconds=words.seconds, number=words.number)
    return environment


def plain(text: str) -> str:
    """Text with everything invisible made visible: control characters, and marks that turn the reading direction."""
    text = _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))
    return _BIDI.sub(lambda m: f"[{unicodedata.name(m.group())}]", text)


def anchor(item_id: str) -> str:
    """A fragment for an item: letters, digits, dashes. Item ids differ in these already."""
    return "item-" + re.sub(r"[^A-Za-z0-9_.-]", "-", item_id)


def _bars(document: Document, baseline: Baseline | None) -> list[dict[str, Any]]:
    """Before, baseline, after: each with its counts, and the share that passes of what applies."""
    score = document["score"]
    rows = [("before", "Before", "first full scan"), ("after", "After", "final full re-scan")]
    bars = [_bar(name, label, note, score[name]) for name, label, note in rows if score[name]]
    if score["baseline"]:
        note = (baseline.method if baseline else "") or "the vendor's own tool alone, on an identical machine"
        bars.append(_bar("baseline", "Baseline", note, score["baseline"]))
    if baseline is not None and baseline.HasField("before") and document["score"]["before"] is None:
        bars.insert(0, _bar("before", "Before", "as measured for the baseline", counts(baseline.before)))
    return bars


def _bar(name: str, label: str, note: str, score: Mapping[str, int]) -> dict[str, Any]:
    # What does not apply says nothing about a machine, and would only make the bar look alike everywhere.
    applies = {k: score[k] for k in ("pass", "fail", "error", "other") if score[k]}
    total = sum(applies.values()) or 1
    judged = score["pass"] + score["fail"] + score["error"]
    return {
        "name": name,
        "label": label,
        "note": note,
        "segments": [{"kind": k, "count": n, "share": 100 * n / total} for k, n in applies.items()],
        "notapplicable": score["notapplicable"],
        "pass": score["pass"],
        "judged": judged,
        "percent": 100 * score["pass"] / judged if judged else 0.0,
    }


def _waffle(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Categories with their cells; the largest first, cells by state so that they read as one shape."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for item in items:
        groups[item["category"]].append(item)
    states = ("completed", "active", "waiting", "deferred", "escalated", "skipped", "queued")
    rank = {state: n for n, state in enumerate(states)}
    return [
        {
            "category": category,
            "cells": sorted(cells, key=lambda i: (rank.get(i["state"], 9), i["id"])),
            "done": sum(i["state"] == "completed" for i in cells),
        }
        for category, cells in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]


def _legend(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"state": state, "count": sum(i["state"] == state for i in items), "mark": mark, "meaning": meaning}
        for state, (mark, meaning) in words.STATES.items()
    ]


def _stories(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items by state, the most severe first."""
    by_state: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for item in items:
        by_state[item["state"]].append({**item, "held_back": held_back(item)})
    known = [s for s in _ORDER if s in by_state] + sorted(set(by_state) - set(_ORDER))
    severity = {name: n for n, name in enumerate(_SEVERITIES)}
    return [
        {
            "state": state,
            "items": sorted(by_state[state], key=lambda i: (severity.get(i["severity"], 9), i["category"], i["id"])),
        }
        for state in known
    ]


def _rungs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    most = max((row["attempts"] for row in rows), default=0) or 1
    return [
        {**row, "meaning": words.RUNGS.get(row["rung"], ""), "share": 100 * row["attempts"] / most}
        | {"fixed_share": 100 * row["fixed"] / most}
        for row in rows
    ]
