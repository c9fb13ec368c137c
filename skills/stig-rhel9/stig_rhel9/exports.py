"""Reports in formats of this skill's own: the final ARF, and a STIG Viewer 3 checklist."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from anneal_contracts.facts import Outcome
from anneal_runtime.errors import InvalidArgument, NotFound

from stig_rhel9.content import Content, ContentStore, Rule
from stig_rhel9.scan import read_arf

ARF_MEDIA_TYPE: Final = "application/gzip"
CKLB_MEDIA_TYPE: Final = "application/json"
_NAMESPACE: Final = uuid.UUID("7f1e0a52-6d0b-5c0e-9b1e-0d6a1b7c9f10")
_STATUS: Final[Mapping[Outcome, str]] = {
    Outcome.PASS: "not_a_finding",
    Outcome.FAIL: "open",
    Outcome.NOT_APPLICABLE: "not_applicable",
    Outcome.ERROR: "not_reviewed",
    Outcome.OTHER: "not_reviewed",
}


async def export(
    store: ContentStore, fmt: str, run: Mapping[str, object], artifacts: Mapping[str, bytes]
) -> tuple[bytes, str]:
    """A report and its media type. Raises InvalidArgument for an unknown format, NotFound for a run without a scan.

    Of the run document it uses `id`, `profile`, `target` and `items`; of the artifacts `arf_after` (before the final
    scan: `arf_before`) and `tailoring`.
    """
    if fmt not in ("arf", "cklb"):
        raise InvalidArgument(f"unknown format {fmt!r}; this skill writes arf and cklb", field="format")
    arf = artifacts.get("arf_after") or artifacts.get("arf_before")
    if not arf:
        raise NotFound("the run has no scan results yet", field="artifacts")
    if fmt == "arf":
        return arf, ARF_MEDIA_TYPE
    content = await store.get(str(run.get("profile") or ""), artifacts.get("tailoring", b""))
    results = await asyncio.to_thread(read_arf, arf)
    checklist = _checklist(content, run, results.outcomes)
    return json.dumps(checklist, indent=1).encode(), CKLB_MEDIA_TYPE


def _checklist(content: Content, run: Mapping[str, object], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    run_id = str(run.get("id") or run.get("run_id") or "")
    stig_uuid = _uuid(run_id, "stig")
    stories = _stories(run)
    rules = [
        _rule(content.rule(name), outcome, stories.get(name, ""), stig_uuid, _uuid(run_id, name))
        for name, outcome in outcomes.items()
        if name in content.rules
    ]
    target = run.get("target")
    name = str(target.get("name", "") if isinstance(target, Mapping) else target or "")
    return {
        "title": f"{content.profile_title} on {name}",
        "id": _uuid(run_id, "checklist"),
        "active": False,
        "mode": 1,
        "has_path": True,
        "target_data": {
            "target_type": "Computing",
            "host_name": name,
            "ip_address": "",
            "mac_address": "",
            "fqdn": "",
            "comments": f"anneal run {run_id}",
            "role": "None",
            "is_web_database": False,
            "technology_area": "",
            "web_db_site": "",
            "web_db_instance": "",
            "classification": None,
        },
        "stigs": [
            {
                "stig_name": content.profile_title,
                "display_name": content.profile_title,
                "stig_id": content.profile,
                "release_info": f"SCAP Security Guide {content.version}",
                "version": content.version,
                "uuid": stig_uuid,
                "reference_identifier": content.sha256[:12],
                "size": len(rules),
                "rules": rules,
            }
        ],
        "cklb_version": "1.0",
    }


def _rule(rule: Rule, outcome: Outcome, story: str, stig_uuid: str, rule_uuid: str) -> dict[str, Any]:
    fix = rule.fixes.get("bash") or rule.fixes.get("ansible")
    return {
        "uuid": rule_uuid,
        "stig_uuid": stig_uuid,
        "target_key": None,
        "stig_ref": None,
        "group_id": rule.id,
        "group_id_src": rule.id,
        "rule_id": rule.full_id,
        "rule_id_src": rule.full_id,
        "rule_version": (rule.references.get("CCE") or [rule.id])[0],
        "weight": "10.0",
        "classification": "Unclassified",
        "severity": rule.severity if rule.severity != "unknown" else "low",
        "group_title": (rule.references.get("SRG") or [rule.category])[0],
        "rule_title": rule.title,
        "fix_text": fix.text if fix else "",
        "discussion": f"{rule.description}\n\n{rule.rationale}".strip(),
        "check_content": rule.check_text,
        "check_content_ref": {"href": "ssg-rhel9-ds.xml", "name": "M"},
        "documentable": "false",
        "legacy_ids": [],
        "ccis": list(rule.references.get("CCI", ())),
        "group_tree": [{"id": rule.id, "title": rule.category, "description": ""}],
        "status": _STATUS[outcome],
        "overrides": {},
        "comments": story,
        "finding_details": f"OpenSCAP: {outcome.value}",
    }


def _stories(run: Mapping[str, object]) -> dict[str, str]:
    """Item id -> what anneal did about it, in a line."""
    items = run.get("items")
    stories: dict[str, str] = {}
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and item.get("id"):
            words = [str(item.get(key) or "") for key in ("state", "rung", "reason")]
            stories[str(item["id"])] = "anneal: " + ", ".join(word for word in words if word)
    return stories


def _uuid(run_id: str, name: str) -> str:
    """The same report twice has the same ids."""
    return str(uuid.uuid5(_NAMESPACE, f"{run_id}/{name}"))
