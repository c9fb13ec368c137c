"""`anneal explain`: one item's story in plain words, from the Run message alone."""

import json
from collections.abc import Mapping
from typing import Any

from anneal.supervisor.v1.supervisor_pb2 import Attempt, Item, Run
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.output import as_data, seconds
from anneal_cli.text import STATES, UNKNOWN_STATE, short_id
from anneal_cli.views import roles

_RUNGS = {
    "vendor": "the fix shipped with the content",
    "curated": "a fix of the skill's own",
    "recalled": "a script that worked before on this kind of machine",
    "model": "a script written by the model",
}
_ENDINGS = {
    "kept": "It was kept: a new generation of the machine's state.",
    "reverted": "It was reverted: the machine was put back as it was before.",
    "unchanged": "It had changed nothing, so there was nothing to put back.",
    "refused": "It was refused and never ran.",
    "": "It is under way.",
}
_MODES = {
    "health_failure": "the machine's health got worse",
    "evaluator_gap": "it ran well and the machine is healthy, but the check still fails",
    "clean_failure": "the script itself reported failure",
    "apply_error": "it could not be carried out",
    "policy_denied": "the policy forbids it",
    "contract_violation": "the model's answer broke its contract",
    "missing_input": "something is missing that only a person can give",
    "target_unreachable": "the target did not answer",
    "group_reverted": "a script of its group failed, so all of the group was taken back and tried one by one",
    "budget_exhausted": "a budget was used up",
    "false_negative": "the check passes although the script reported noise",
}
_STATES = {
    "completed": "It holds now",
    "escalated": "It was handed to a person",
    "deferred": "It was put off",
    "skipped": "It was left alone",
    "queued": "It waits for its turn",
    "active": "It is being worked on",
}
_MAX_LINES = 60


def find_item(run: Run, given: str) -> Item:
    """The item of this id, or the only one whose id contains it. Raises CliError: none, or several."""
    exact = next((item for item in run.items if item.id == given), None)
    found = [exact] if exact else [item for item in run.items if given in item.id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CliError(
            message=f"run {short_id(run.run_id)} has no item like {given!r}",
            code=ExitCode.NOT_FOUND,
            field="RULE",
            hint=f"anneal show {short_id(run.run_id)} lists them; a rule that held, or did not apply, is no item",
        )
    some = ", ".join(item.id for item in found[:5])
    raise CliError(
        message=f"{given!r} fits {len(found)} items: {some}{', ...' if len(found) > 5 else ''}",
        code=ExitCode.USAGE,
        field="RULE",
        hint="give more of the id",
    )


def explain_data(run: Run, item: Item, scripts: Mapping[str, str]) -> dict[str, Any]:
    """The story for programs: the item as the wire has it, its detail as an object, scripts and answers by blob."""
    data = as_data(item)
    data.pop("detail_json", None)
    return {"run_id": run.run_id, "item": data, "detail": detail_of(item), "scripts": dict(scripts)}


def detail_of(item: Item) -> dict[str, Any]:
    """The skill's description of the item; empty where it gave none."""
    try:
        detail = json.loads(item.detail_json or b"{}")
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


def print_story(out: Console, run: Run, item: Item, scripts: Mapping[str, str]) -> None:
    """Tells the story: what is asked, what was tried and why, what came of it, what is left to do."""
    detail = detail_of(item)
    _print_head(out, item, detail)
    story = item.story
    roles.print_memories(out, story)
    if story.chosen_why:
        out.print(f"\nThe Architect took it before the others: {story.chosen_why}", markup=False)
    roles.print_before(out, story, 0, scripts)
    for number, attempt in enumerate(item.attempts, start=1):
        _print_attempt(out, attempt, scripts)
        roles.print_after(out, story, attempt.number)
        roles.print_before(out, story, number, scripts)
    roles.print_empty_turns(out, story)
    _print_untried(out, run, item)
    _print_end(out, run, item)
    roles.print_decided(out, story)
    if item.model_words:
        out.print("\nIn a model's words (no evidence, it may be wrong):", style="magenta")
        out.print(Padding(Text(item.model_words, style="italic"), (0, 0, 0, 2), expand=False))


def _print_head(out: Console, item: Item, detail: Mapping[str, Any]) -> None:
    glyph, style = STATES.get(item.state, UNKNOWN_STATE)
    out.print(Text.assemble((f"{glyph} ", style), (item.id, "bold"), f"  {item.severity} severity, {item.category}"))
    out.print(Padding(Text(item.title), (0, 0, 0, 2), expand=False))
    for title, key in (("Why it matters", "rationale"), ("What is asked", "description")):
        if detail.get(key):
            _print_part(out, title, str(detail[key]).strip())
    references = detail.get("references") or {}
    if references:
        known = ", ".join(f"{name} {' '.join(ids)}" for name, ids in sorted(references.items()) if ids)
        _print_part(out, "References", known)


def _print_part(out: Console, title: str, text: str) -> None:
    out.print(f"\n{title}:", style="bold")
    out.print(Padding(Text(_shortened(text)), (0, 0, 0, 2), expand=False))


def _print_attempt(out: Console, attempt: Attempt, scripts: Mapping[str, str]) -> None:
    action = attempt.action
    took = f", {seconds(attempt.took.seconds + attempt.took.nanos / 1e9)}" if attempt.HasField("took") else ""
    out.print(
        f"\nAttempt {attempt.number}: {_RUNGS.get(action.source, action.source)}{took}", style="bold", markup=False
    )
    words = [f"“{action.title}” ({action.kind}, {action.mutability})."]
    words += [f"Policy: {action.policy}."] if action.policy else []
    out.print(Padding(Text(" ".join(words)), (0, 0, 0, 2), expand=False))
    if scripts.get(action.blob):
        out.print(Padding(Text(_shortened(scripts[action.blob]), style="dim"), (0, 0, 0, 6), expand=False))
    if attempt.ending and attempt.ending != "refused":
        out.print(Padding(Text(_came_of_it(attempt)), (0, 0, 0, 2), expand=False))
    for title, text in (("It said", attempt.output), ("Evidence", attempt.evidence)):
        if text.strip():
            out.print(
                Padding(Text.assemble((f"{title}: ", "bold"), _shortened(text.strip())), (0, 0, 0, 2), expand=False)
            )
    out.print(Padding(Text(_ENDINGS.get(attempt.ending, attempt.ending)), (0, 0, 0, 2), expand=False))


def _came_of_it(attempt: Attempt) -> str:
    verdict = f"verdict: {attempt.outcome}" if attempt.outcome else "no verdict"
    mode = f": {_MODES.get(attempt.failure_mode, attempt.failure_mode)}" if attempt.failure_mode else ""
    return f"The script ended with {attempt.exit_code}; {verdict}{mode}."


def _print_untried(out: Console, run: Run, item: Item) -> None:
    """Rungs that were known and did not run, with the policy's word where it gave one."""
    ran = {attempt.action.hash for attempt in item.attempts}
    left = [action for action in item.plan if action.hash not in ran]
    if not left:
        return
    title = "Planned" if run.spec.dry_run or item.state in ("queued", "active") else "Known, not tried"
    out.print(f"\n{title}:", style="bold")
    for action in left:
        word = f": {action.policy}" if action.policy else ""
        refused = "" if action.allowed else ", not allowed"
        line = f"{_RUNGS.get(action.source, action.source)}, “{action.title}” ({action.mutability}{refused}){word}"
        out.print(Padding(Text(line), (0, 0, 0, 2), expand=False))


def _print_end(out: Console, run: Run, item: Item) -> None:
    by = f", by {_RUNGS.get(item.rung, item.rung)}" if item.rung else ""
    why = f": {item.reason}" if item.reason else ""
    final = f" The final re-scan says {item.final_outcome}." if item.final_outcome else ""
    out.print(f"\n{_STATES.get(item.state, item.state)}{by}{why}.{final}", style="bold", markup=False)
    if item.id in run.regressions:
        out.print("It passed before the run: a regression.", style="bold red")
    if item.id in run.became_applicable:
        out.print("It did not apply before the run; it became applicable in it.", style="yellow")


def _shortened(text: str) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) <= _MAX_LINES:
        return "\n".join(lines)
    return "\n".join([*lines[:_MAX_LINES], f"... {len(lines) - _MAX_LINES} more lines (--json has all)"])
