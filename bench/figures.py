"""Figures, percentiles, the table for people and the file for programs. Pure but for write() and timed()."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import ge, le
from pathlib import Path
from typing import Any, Final

OUT: Final = Path(__file__).parent / "out"
PERCENTILES: Final = (50, 90, 99)


class BenchError(Exception):
    """Something could not be measured. The message says what and, where there is one, the next step."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What a figure is held against: another way to the same end, or the floor under it, in the figure's unit."""

    what: str
    values: tuple[float, ...]

    def data(self) -> dict[str, Any]:
        """As it stands in the file."""
        p50, p90 = (percentile(self.values, p) for p in (50, 90))
        return {"what": self.what, "p50": _rounded(p50), "p90": _rounded(p90), "n": len(self.values)}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Something that was measured len(values) times.

    goal: percentile's name -> the most it may be, or with at_least the least.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    goal: Mapping[str, float] | None = None
    peer: Peer | None = None
    at_least: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.goal or ()) - {f"p{p}" for p in PERCENTILES}
        if unknown:
            raise ValueError(f"goal of {self.name}: no such percentile: {', '.join(sorted(unknown))}")

    def percentiles(self) -> dict[str, float | None]:
        """p50, p90, p99; None where nothing was measured."""
        return {f"p{p}": _rounded(percentile(self.values, p)) for p in PERCENTILES}

    def data(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            **self.percentiles(),
            "n": len(self.values),
            "unit": self.unit,
            "goal": dict(self.goal) if self.goal else None,
            "peer": self.peer.data() if self.peer and self.peer.values else None,
        }

    def met(self) -> bool | None:
        """Is every bound of the goal held? None without a goal, or without values."""
        if not self.goal or not self.values:
            return None
        found = self.percentiles()
        held = ge if self.at_least else le
        return all(held(found[name] or 0.0, bound) for name, bound in self.goal.items())


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much to measure. quick: just enough to see that it works; such figures are kept apart and say little."""

    quick: bool = False
    say: Callable[[str], None] = print

    def count(self, full: int, quick: int) -> int:
        """How often to measure something."""
        return quick if self.quick else full


@contextmanager
def timed(values: list[float]) -> Iterator[None]:
    """Adds the seconds that the block took; nothing where it raises."""
    began = time.monotonic()
    yield
    values.append(time.monotonic() - began)


def percentile(values: Sequence[float], p: float) -> float | None:
    """The smallest value that p percent of the values do not exceed (nearest rank): always one that was measured."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(p / 100 * len(values)) - 1)]


def spread(things: Sequence[str], count: int) -> list[str]:
    """At most count of things, evenly spaced: a sample that is the same each time."""
    if count >= len(things):
        return list(things)
    return [things[i * len(things) // count] for i in range(count)]


def document(name: str, machine: Mapping[str, Any], commit: str, figures: Iterable[Figure]) -> dict[str, Any]:
    """The content of bench/out/NAME.json."""
    return {"name": name, "machine": dict(machine), "commit": commit, "figures": {f.name: f.data() for f in figures}}


def write(found: Mapping[str, Any], *, quick: bool = False, out: Path = OUT) -> Path:
    """Writes a document as a whole. A quick one gets a name of its own, so that it never passes for the real one."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{found['name']}{'.quick' if quick else ''}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(path)
    return path


def table(figures: Sequence[Figure]) -> str:
    """The figures for people: a row each, and below it what the peers are."""
    head = ["figure", "n", "p50", "p90", "p99", "unit", "goal", "peer p50 / p90"]
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    numeric = range(1, 5)
    lines = [
        "  ".join(row[i].rjust(w) if i in numeric else row[i].ljust(w) for i, w in enumerate(widths)) for row in rows
    ]
    return "\n".join(line.rstrip() for line in [*lines, *_peers(figures)])


def _peers(figures: Sequence[Figure]) -> list[str]:
    """What each peer is; figures that share one share a line."""
    held: dict[str, list[str]] = {}
    for figure in figures:
        if figure.peer and figure.peer.values:
            held.setdefault(f"{figure.peer.what} (n={len(figure.peer.values)})", []).append(figure.name)
    return [f"peer of {', '.join(names)}: {what}" for what, names in held.items()]


def _row(figure: Figure) -> list[str]:
    data = figure.data()
    measured = [str(data["n"]), *(_number(data[f"p{p}"]) for p in PERCENTILES), figure.unit]
    peer = data["peer"]
    return [
        figure.name,
        *measured,
        _goal(figure),
        f"{_number(peer['p50'])} / {_number(peer['p90'])}" if peer else "-",
    ]


def _goal(figure: Figure) -> str:
    if not figure.goal:
        return "-"
    word = {True: ": met", False: ": MISSED", None: ""}[figure.met()]
    sign = ">=" if figure.at_least else "<="
    return ", ".join(f"{name} {sign} {bound:g}" for name, bound in figure.goal.items()) + word


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
