"""The JSON document of a run: what `anneal show --json` prints and every other report is made of."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from anneal.common.v1.common_pb2 import ScoreCounts
from anneal.supervisor.v1 import supervisor_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

# Rungs of the ladder, lowest first; a table by rung has them all, also the ones that fixed nothing.
RUNGS = ("vendor", "curated", "recalled", "model")
# An attempt costs two counted steps: carrying it out and evaluating it.
STEPS_PER_ATTEMPT = 2

Document = dict[str, Any]


def run_document(run: pb.Run) -> Document:
    """The run as plain JSON data. Counts are null where their scan has not happened; times are ISO 8601, UTC."""
    items = [_item(item) for item in run.items]
    return {
        "run_id": run.run_id,
        "skill": run.spec.skill,
        "target": run.spec.target,
        "profile": run.spec.profile,
        "state": run.state,
        "reason": run.reason,
        "origin": _origin(run.origin) if run.HasField("origin") else None,
        "created_at": _time(run.created_at) if run.HasField("created_at") else None,
        "ended_at": _time(run.ended_at) if run.HasField("ended_at") else None,
        "seconds": round(run.seconds, 3),
        "steps": run.steps,
        "tokens": run.tokens,
        "score": _score(run),
        "states": dict(sorted(Counter(item["state"] for item in items).items())),
        "by_rung": by_rung(items),
        "goal": {"level": run.goal, "reasons": list(run.goal_reasons)},
        "diagnoses": [_diagnosis(d) for d in run.diagnoses],
        "memory": _memory(run, items),
        "items": items,
        "regressions": list(run.regressions),
        "became_applicable": dict(sorted(run.became_applicable.items())),
        "differences": list(run.differences),
        "notes": list(run.notes),
        "limits": _limits(run.spec),
        "fingerprint": run.fingerprint,
        "artifacts": dict(sorted(run.artifacts.items())),
        "last_seq": run.last_seq,
    }


def _origin(origin: pb.Origin) -> dict[str, Any]:
    """Where a forked run comes from: its events up to seq are that run's."""
    return {
        "run_id": origin.run_id,
        "seq": origin.seq,
        "hash": origin.hash,
        "generation": origin.generation,
        "by": origin.by,
    }


def counts(score: ScoreCounts) -> dict[str, int]:
    """Counts of one full scan under the names of its results."""
    return {
        "pass": getattr(score, "pass"),
        "fail": score.fail,
        "error": score.error,
        "notapplicable": score.notapplicable,
        "other": score.other,
    }


def by_rung(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each rung tried, fixed, and was kept from trying, with the seconds its attempts took."""
    table: dict[str, dict[str, Any]] = {rung: _row(rung) for rung in RUNGS}
    for item in items:
        for attempt in item["story"]:
            row = table.setdefault(attempt["rung"], _row(attempt["rung"]))
            row["held_back" if attempt["ending"] == "refused" else "attempts"] += 1
            row["seconds"] = round(row["seconds"] + attempt["seconds"], 3)
        for action in held_back(item):
            table.setdefault(action["source"], _row(action["source"]))["held_back"] += 1
        if item["rung"]:
            table.setdefault(item["rung"], _row(item["rung"]))["fixed"] += 1
    return list(table.values())


def held_back(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Fixes of an item that were known and never ran: refused by policy, or banned by memory."""
    tried = {attempt["hash"] for attempt in item["story"]}
    return [action for action in item["plan"] if not action["allowed"] and action["hash"] not in tried]


def _row(rung: str) -> dict[str, Any]:
    return {"rung": rung, "attempts": 0, "fixed": 0, "held_back": 0, "seconds": 0.0}


def _score(run: pb.Run) -> dict[str, Any]:
    score = run.score
    return {
        name: counts(getattr(score, name)) if score.HasField(name) else None for name in ("before", "after", "baseline")
    } | {"fixed": score.fixed, "regressed": score.regressed}


def _memory(run: pb.Run, items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What earlier runs were worth: scripts that worked again, together, and known failures that were not repeated."""
    items = list(items)
    recalled = sum(item["rung"] == "recalled" for item in items)
    return {
        "recalled_anything": run.recalled_anything,
        "fixed_by_recalled": recalled,
        "known_failures_skipped": run.banned_skips,
        "groups": len(_groups(items)),
        "steps_saved": run.banned_skips * STEPS_PER_ATTEMPT + sum(map(_saved, _groups(items).values())),
    }


def _groups(items: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """The attempts that were judged together, by the number of their group."""
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for item in items:
        for attempt in item["story"]:
            if attempt["group"]:
                groups.setdefault(attempt["group"], []).append(attempt)
    return groups


def _saved(members: list[Mapping[str, Any]]) -> int:
    """Steps that a group saved: all evaluations but one; what a group that was taken back had cost is lost."""
    kept = all(attempt["ending"] == "kept" for attempt in members)
    return len(members) - 1 if kept else -len(members) - 1


def _limits(spec: pb.RunSpec) -> dict[str, Any]:
    return {
        "time_budget_s": spec.time_budget.ToMilliseconds() / 1000,
        "max_attempts": spec.max_attempts,
        "max_steps": spec.max_steps,
        "limit": spec.limit,
        "items": list(spec.item_ids),
        "excluded": {e.item_id: e.reason for e in spec.exclusions},
        "dry_run": spec.dry_run,
        "memory": not spec.no_memory,
        "model_profile": spec.model_profile or "default",
    }


def _diagnosis(d: pb.GateDiagnosis) -> dict[str, Any]:
    return {
        "item": d.item_id,
        "cause": d.cause,
        "suspects": list(d.suspects),
        "confidence": round(d.confidence, 2),
        "action": d.action,
    }


def _item(item: pb.Item) -> dict[str, Any]:
    detail = _detail(item)
    return {
        "id": item.id,
        "title": item.title,
        "category": item.category or "other",
        "severity": item.severity or "unknown",
        "state": item.state,
        "reason": item.reason,
        "decided_by": item.story.decided_by,
        "missing_input": item.story.missing_input,
        "attempts": item.attempts_made,
        "rung": item.rung,
        "final_outcome": item.final_outcome,
        "model_words": item.model_words,
        "story": [_attempt(attempt) for attempt in item.attempts],
        "plan": [_action(action) for action in item.plan],
        "description": str(detail.get("description", "")),
        "rationale": str(detail.get("rationale", "")),
        "fix_text": str(detail.get("fix_text", "")),
        "check_text": str(detail.get("check_text", "")),
        "references": detail.get("references") or {},
    }


def _detail(item: pb.Item) -> dict[str, Any]:
    """The skill's own description. A log of an older version may hold none; a report must still come out."""
    try:
        detail = json.loads(item.detail_json or b"{}")
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


def _attempt(attempt: pb.Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "rung": attempt.action.source,
        **{k: v for k, v in _action(attempt.action).items() if k != "source"},
        "ending": attempt.ending,
        "failure_mode": attempt.failure_mode,
        "outcome": attempt.outcome,
        "evidence": attempt.evidence,
        "exit_code": attempt.exit_code,
        "output": attempt.output,
        "seconds": attempt.took.ToMilliseconds() / 1000,
        "parts": {name: round(seconds, 4) for name, seconds in sorted(attempt.parts.items())},
        "generation": attempt.generation,
        "group": attempt.group,
    }


def _action(action: pb.Action) -> dict[str, Any]:
    return {
        "source": action.source,
        "kind": action.kind,
        "title": action.title,
        "mutability": action.mutability,
        "allowed": action.allowed,
        "policy": action.policy,
        "hash": action.hash,
        "blob": action.blob,
    }


def _time(stamp: Timestamp) -> str:
    return stamp.ToJsonString()
