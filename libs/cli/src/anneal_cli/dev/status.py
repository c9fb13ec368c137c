"""What runs, how it is, and how much memory it holds."""

from dataclasses import dataclass

import psutil

from anneal_cli.dev.plan import OFFSETS, SERVICES
from anneal_cli.dev.state import DevState, is_alive

MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ProcessRow:
    """One part with all its processes. rss_mb counts shared pages in each process, pss_mb counts them once."""

    name: str
    pid: int
    port: int
    state: str
    restarts: int
    processes: int
    rss_mb: float
    pss_mb: float


def rows(state: DevState, serving: dict[str, bool]) -> list[ProcessRow]:
    """One row a part, `anneal dev` itself first."""
    own = _row("dev", state.pid, 0, state.phase, 0, descend=False)
    by_name = {child.name: child for child in state.children}
    found = [own]
    for name in (name for name in OFFSETS if name in state.ports and name != "gateway-http"):
        child = by_name.get(name)
        if child is None or not is_alive(child.pid, child.started):
            found.append(_row(name, 0, state.ports[name], "down", child.restarts if child else 0, descend=True))
            continue
        word = ("serving" if serving.get(name) else "not serving") if name in SERVICES else "running"
        found.append(_row(name, child.pid, state.ports[name], word, child.restarts, descend=True))
    return found


def _row(name: str, pid: int, port: int, word: str, restarts: int, *, descend: bool) -> ProcessRow:
    sizes = _memory(pid, descend) if pid else []
    return ProcessRow(
        name=name,
        pid=pid,
        port=port,
        state=word,
        restarts=restarts,
        processes=len(sizes),
        rss_mb=round(sum(rss for rss, _ in sizes) / MB, 1),
        pss_mb=round(sum(pss for _, pss in sizes) / MB, 1),
    )


def _memory(pid: int, descend: bool) -> list[tuple[int, int]]:
    """(resident, proportional) bytes of a process and, where asked for, of all below it."""
    sizes = []
    try:
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if descend else [])]
    except psutil.Error:
        return []
    for member in family:
        try:
            rss = member.memory_info().rss
        except psutil.Error:
            continue
        try:
            pss = member.memory_full_info().pss
        except (psutil.Error, AttributeError):
            pss = rss  # another user's process: what is shared stays unknown
        sizes.append((rss, pss))
    return sizes


def totals(found: list[ProcessRow]) -> dict[str, float]:
    """Sums in MB; the model counts apart, as its size is a choice of the user's."""
    without = [row for row in found if row.name != "model"]
    return {
        "rss_mb_without_model": round(sum(row.rss_mb for row in without), 1),
        "pss_mb_without_model": round(sum(row.pss_mb for row in without), 1),
        "rss_mb": round(sum(row.rss_mb for row in found), 1),
    }
