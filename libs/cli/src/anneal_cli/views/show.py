"""`anneal runs` and `anneal show`: lists and summaries. What went wrong comes before what went right."""

from collections import Counter
from collections.abc import Sequence

from anneal.supervisor.v1.supervisor_pb2 import GateDiagnosis, Item, Run
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from anneal_cli.output import seconds
from anneal_cli.text import STATES, UNKNOWN_STATE, has_ended, short_id, tally, when

_STATE_STYLE = {"finished": "green", "failed": "bold red", "cancelled": "yellow"}
# States whose items are named one by one; what worked is told as a table of rungs.
_NAMED_STATES = ("escalated", "deferred", "skipped", "active", "waiting")


def plain_table(*titles: tuple[str, bool]) -> Table:
    """A table without lines; titles with "is a number"."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, is_number in titles:
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    return table


def print_runs(out: Console, runs: Sequence[Run]) -> None:
    """One line a run."""
    if not runs:
        out.print("no runs yet\n  next: anneal run SKILL --target NAME --watch", markup=False)
        return
    table = plain_table(("run", False), ("started", False), ("skill", False), ("target", False), ("state", False))
    table.add_column("fixed", justify="right")
    table.add_column("time", justify="right")
    for run in runs:
        state = Text(run.state, style=_STATE_STYLE.get(run.state, "cyan"))
        fixed = str(run.score.fixed) if run.score.HasField("after") else "-"
        table.add_row(
            short_id(run.run_id),
            when(run.created_at),
            run.spec.skill,
            run.spec.target,
            state,
            fixed,
            seconds(run.seconds),
        )
    out.print(table)


def print_run(out: Console, run: Run) -> None:
    """Everything of a run that fits a terminal, item reasons included."""
    print_summary(out, run, hints=False)
    for state in _NAMED_STATES:
        _print_items(out, state, [item for item in run.items if item.state == state])
    _print_hints(out, run)


def print_summary(out: Console, run: Run, *, hints: bool = True) -> None:
    """Heading, regressions, what became applicable, score, tally, rungs, differences."""
    _print_heading(out, run)
    if run.regressions:
        out.print(f"\n{len(run.regressions)} passed before and fail now:", style="bold red")
        for rule in run.regressions:
            out.print(f"  {rule}", style="red", markup=False)
    _print_became_applicable(out, run)
    _print_score(out, run)
    _print_tally(out, run)
    _print_rungs(out, run)
    _print_list(out, "Gates between waves found:", [_diagnosed(d) for d in run.diagnoses], "yellow")
    _print_list(out, "The loop's bookkeeping and the final re-scan disagree:", run.differences, "yellow")
    _print_list(out, "Notes:", run.notes, "")
    if hints:
        _print_hints(out, run)


def _diagnosed(d: GateDiagnosis) -> str:
    what = {"reopen": "mended again", "escalate": "left to a person", "halt": "the work ends"}.get(d.action, d.action)
    return f"{d.item_id or 'the machine'}: {d.cause} (confidence {d.confidence:.1f}; {what})"


def _print_heading(out: Console, run: Run) -> None:
    profile = f" ({run.spec.profile})" if run.spec.profile else ""
    line = Text(f"run {run.run_id}  {run.spec.skill}{profile} on {run.spec.target}  ", style="bold")
    line.append(run.state or "starting", style=_STATE_STYLE.get(run.state, "cyan"))
    out.print(line)
    if run.reason:
        out.print(f"  reason: {run.reason}", markup=False)
    if run.HasField("origin"):
        origin = run.origin
        out.print(f"  forked from {origin.run_id} after event {origin.seq}, by {origin.by}", markup=False)
    if run.goal:
        out.print(f"  goal: {run.goal} ({'; '.join(run.goal_reasons)})", markup=False)
    used = f"{run.steps} steps, {run.tokens} model tokens, {seconds(run.seconds)}"
    memory = "scripts from earlier runs were used" if run.recalled_anything else ""
    bans = f"{run.banned_skips} attempts spared by what earlier runs taught" if run.banned_skips else ""
    out.print(
        "  " + "; ".join(part for part in (f"started {when(run.created_at)}", used, memory, bans) if part), markup=False
    )


def _print_became_applicable(out: Console, run: Run) -> None:
    """No regressions, but nothing that may stand there silently either."""
    failing = sorted(rule for rule, outcome in run.became_applicable.items() if outcome != "pass")
    if run.became_applicable:
        passing = len(run.became_applicable) - len(failing)
        told = f"{passing} pass, {len(failing)} fail{':' if failing else ''}"
        out.print(
            f"\n{len(run.became_applicable)} did not apply before and apply now: {told}", style="yellow", markup=False
        )
    for rule in failing:
        out.print(f"  {rule}", style="yellow", markup=False)


def _print_score(out: Console, run: Run) -> None:
    if not run.score.HasField("before"):
        return
    table = plain_table(("full scan", False), ("pass", True), ("fail", True), ("error", True), ("not applicable", True))
    for name, field in (("before", "before"), ("after", "after"), ("vendor's tool alone", "baseline")):
        if run.score.HasField(field):  # type: ignore[arg-type]
            score = getattr(run.score, field)
            table.add_row(name, *(str(getattr(score, key)) for key in ("pass", "fail", "error", "notapplicable")))
    out.print()
    out.print(table)
    if run.score.HasField("after"):
        worse = f", {run.score.regressed} regressed" if run.score.regressed else ", none regressed"
        out.print(f"{run.score.fixed} fixed{worse}", style="bold green" if not run.score.regressed else "bold")


def _print_tally(out: Console, run: Run) -> None:
    if not run.items:
        return
    text = Text(f"\n{len(run.items)} items: ")
    for n, (state, number) in enumerate(tally(run).items()):
        glyph, style = STATES.get(state, UNKNOWN_STATE)
        text.append(", " if n else "").append(f"{glyph} {number} {state}", style=style)
    out.print(text)


def _print_rungs(out: Console, run: Run) -> None:
    """What each rung of the ladder tried and what of it stayed."""
    tried, kept, fixed = Counter[str](), Counter[str](), Counter[str]()
    for item in run.items:
        tried.update(attempt.action.source for attempt in item.attempts)
        kept.update(attempt.action.source for attempt in item.attempts if attempt.ending == "kept")
        fixed.update([item.rung] if item.rung else [])
    if not tried:
        return
    table = plain_table(("rung", False), ("attempts", True), ("kept", True), ("items fixed", True))
    known = [rung for rung in ("vendor", "curated", "recalled", "model") if rung in tried]
    for rung in [*known, *sorted(set(tried) - set(known))]:
        table.add_row(rung, str(tried[rung]), str(kept[rung]), str(fixed[rung]))
    out.print()
    out.print(table)


def _print_list(out: Console, title: str, lines: Sequence[str], style: str) -> None:
    if lines:
        out.print(f"\n{title}", style=style, markup=False)
        for line in lines:
            out.print(Padding(Text(line), (0, 0, 0, 2), expand=False))


def _print_items(out: Console, state: str, items: Sequence[Item]) -> None:
    if not items:
        return
    glyph, style = STATES.get(state, UNKNOWN_STATE)
    out.print(f"\n{glyph} {state}", style=style)
    table = plain_table(("rule", False), ("severity", False), ("tries", True), ("reason", False))
    for item in items:
        table.add_row(Text(item.id), item.severity, str(item.attempts_made), Text(item.reason or "-"))
    out.print(Padding(table, (0, 0, 0, 2), expand=False))


def _print_hints(out: Console, run: Run) -> None:
    short = short_id(run.run_id)
    hints = [] if has_ended(run) else [f"anneal watch {short}"]
    example = next((item.id for item in run.items if item.state == "escalated"), next((i.id for i in run.items), ""))
    hints += [f"anneal explain {short} {example}"] if example else []
    hints += [f"anneal report {short} -o report.html", f"anneal audit verify {short}"] if has_ended(run) else []
    out.print("\nnext  " + "\n      ".join(hints), style="dim", markup=False)
