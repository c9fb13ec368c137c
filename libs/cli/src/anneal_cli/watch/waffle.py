"""The waffle: one cell per rule, grouped by category. Renders a Run message and nothing else; fits the terminal.

A cell differs by glyph as well as by colour. Categories get a line each where the height allows; else they flow one
after the other; and where even that is too much, categories with nothing left to do shrink to their count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anneal.supervisor.v1.supervisor_pb2 import Item, Run
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from anneal_cli.output import seconds
from anneal_cli.text import STATES, UNKNOWN_STATE, has_ended, short_id, tally

_ASCII = {"■": "#", "◆": "@", "▲": "!", "◐": "~", "·": ".", "-": "-", "✗": "X", "?": "?"}
_REGRESSED = ("✗", "bold red")
_LABEL_WIDTH = 18
# Lines that are no cells: heading, two of activity, legend, counters, and air.
_OTHER_LINES = 7


@dataclass(frozen=True, kw_only=True)
class Waffle:
    """What is shown of a run. doing: what the engine is at; last: what came of the item before."""

    run: Run
    doing: str = ""
    last: str = ""
    # Empty: connected. Else what hinders.
    trouble: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = not options.encoding.lower().startswith("utf")
        width = options.max_width
        yield self._heading(width, plain)
        yield from cells(self.run, width, max(3, console.size.height - _OTHER_LINES), plain)
        yield Text()
        yield from (_fit(line, width, plain) for line in self._activity())
        yield from legend(self.run, width, plain)
        yield _fit(Text(counters(self.run)), width, plain)

    def _heading(self, width: int, plain: bool) -> Text:
        run = self.run
        profile = f" ({run.spec.profile})" if run.spec.profile else ""
        dry = "  dry run" if run.spec.dry_run else ""
        colour = {"finished": "bold green", "failed": "bold red", "cancelled": "yellow"}.get(run.state, "bold cyan")
        text = Text(f"run {short_id(run.run_id)}  {run.spec.skill}{profile} on {run.spec.target}{dry}  ", style="bold")
        text.append(run.state or "starting", style=colour)
        return _fit(text, width, plain)

    def _activity(self) -> Iterable[Text]:
        yield Text.assemble(
            ("now   ", "dim"), (self.trouble, "yellow") if self.trouble else activity(self.run, self.doing)
        )
        yield Text.assemble(("last  ", "dim"), self.last or "-")


def activity(run: Run, doing: str) -> str:
    """What is going on, in one line: item, attempt, rung, step."""
    if has_ended(run):
        return f"{run.state}{': ' + run.reason if run.reason else ''}"
    item = next((item for item in run.items if item.state == "active"), None)
    if item is None:
        return doing or run.state
    attempt = item.attempts[-1] if item.attempts else None
    of = f"/{run.spec.max_attempts}" if run.spec.max_attempts else ""
    what = f"  attempt {attempt.number}{of}  {attempt.action.source}" if attempt else ""
    return f"{item.id}{what}{'  ' + doing if doing else ''}"


def _cell(item: Item, regressed: bool, plain: bool) -> tuple[str, str]:
    glyph, style = _REGRESSED if regressed else STATES.get(item.state, UNKNOWN_STATE)
    return (_ASCII[glyph] if plain else glyph), style


def groups(run: Run) -> list[tuple[str, list[Item]]]:
    """Items by category, in the order in which the categories first appear."""
    by_name: dict[str, list[Item]] = {}
    for item in run.items:
        by_name.setdefault(item.category or "other", []).append(item)
    return list(by_name.items())


def cells(run: Run, width: int, height: int, plain: bool) -> Sequence[Text]:
    """The lines of cells: at most `height` of them where that is possible at all."""
    if not run.items:
        return [
            Text(
                "  nothing to do yet: the target is being looked at" if not has_ended(run) else "  no items",
                style="dim",
            )
        ]
    gone = frozenset(run.regressions)
    named = [(name, [_cell(item, item.id in gone, plain) for item in items]) for name, items in groups(run)]
    lines = _by_line(named, width)
    if len(lines) > height:
        lines = _flowing(named, width)
    if len(lines) > height:
        lines = _flowing([(name, _shrunk(items)) for name, items in named], width)
    return lines


_Cells = list[tuple[str, str]]


def _by_line(named: list[tuple[str, _Cells]], width: int) -> list[Text]:
    label = min(_LABEL_WIDTH, max(len(name) for name, _ in named) + 1, max(6, width // 4))
    room = max(1, width - label - 1)
    lines = []
    for name, row in named:
        for start in range(0, len(row), room):
            line = Text(_cut(name if start == 0 else "", label - 1).ljust(label), style="")
            line.append_text(Text.assemble(*row[start : start + room]))
            lines.append(line)
    return lines


def _flowing(named: list[tuple[str, _Cells]], width: int) -> list[Text]:
    """Categories one after the other, cut into lines wherever a line is full."""
    lines: list[Text] = []
    line = Text()
    for name, row in named:
        if line.cell_len and line.cell_len + min(len(name) + 2, width) > width:
            lines, line = [*lines, line], Text()
        line.append(f"{_cut(name, max(4, width - 2))} ", style="dim")
        for glyph, style in row:
            if line.cell_len >= width:
                lines, line = [*lines, line], Text()
            line.append(glyph, style=style)
        line.append(" ")
    return [*lines, line]


def _shrunk(row: _Cells) -> _Cells:
    """A category with nothing left to do, as one cell of each kind with its count."""
    waiting = {STATES["queued"][0], STATES["active"][0], _ASCII[STATES["queued"][0]], _ASCII[STATES["active"][0]]}
    if any(glyph in waiting for glyph, _ in row):
        return row
    kinds = dict.fromkeys(row)
    return [(f"{glyph}{sum(1 for cell in row if cell == (glyph, style))}", style) for glyph, style in kinds]


def legend(run: Run, width: int, plain: bool) -> list[Text]:
    """Glyph, state and count of every state that occurs: the key and the tally in one. No entry is broken."""
    entries = [(*STATES[state], f"{state} {number}") for state, number in tally(run).items()]
    entries += [(*_REGRESSED, f"regressed {len(run.regressions)}")] if run.regressions else []
    lines = [Text()]
    for glyph, style, words in entries:
        entry = f"{_ASCII[glyph] if plain else glyph} {words}"
        if lines[-1] and lines[-1].cell_len + 2 + len(entry) > width:
            lines.append(Text())
        lines[-1].append("  " if lines[-1] else "").append(entry, style=style)
    return [_fit(line, width, plain) for line in lines]


def counters(run: Run) -> str:
    """Done of all, left, steps, time, rate."""
    number = tally(run)
    left = number.get("queued", 0) + number.get("active", 0)
    done = len(run.items) - left
    took = run.seconds
    rate = f"  {done / took * 60:.0f}/min" if took > 1 and done else ""
    tokens = f"  {run.tokens} tokens" if run.tokens else ""
    return f"{done}/{len(run.items)} done  {left} left  {run.steps} steps{tokens}  {seconds(took)}{rate}"


def _fit(text: Text, width: int, plain: bool) -> Text:
    text.truncate(width, overflow="crop" if plain else "ellipsis")
    return text


def _cut(text: str, width: int) -> str:
    return text[: max(1, width)]
