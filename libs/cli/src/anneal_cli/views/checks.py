"""A list of checks: what holds, what does not, and what mends it."""

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

# Name, holds, needed, detail, what mends it.
CheckLine = tuple[str, bool, bool, str, str]


def print_checks(out: Console, lines: Iterable[CheckLine]) -> None:
    """One line a check; below one that does not hold, the command that mends it."""
    for name, ok, needed, detail, mend in lines:
        glyph, style = ("ok  ", "green") if ok else ("FAIL", "bold red") if needed else ("warn", "yellow")
        line = Text.assemble((glyph, style), "  ", (f"{name:<14}", "" if ok else "bold"), " ", detail)
        line.overflow = "fold"
        out.print(line)
        if mend and not ok:
            out.print(Padding(Text(f"mend: {mend}", style="cyan"), (0, 0, 0, 6), expand=False))
