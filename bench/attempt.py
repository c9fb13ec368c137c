"""Where the time of an attempt goes: a real run of the STIG skill on a pristine machine, from its own log."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.figures import BenchError, Figure, Scale
from bench.machines import Machine, machine
from bench.stack import Running, data_folder, dev
from bench.start import memory_figures

# As the log has them: what the doers measured, and overhead, which is all the rest (messages, commits, waiting).
PARTS: Final = ("apply", "evaluate", "keep", "revert", "overhead")
_RUN_S: Final = 1200.0


def run(scale: Scale) -> Sequence[Figure]:
    """Runs the skill's first items to the end, without the local model, in a new data folder."""
    items = scale.count(40, 3)
    with machine() as box, data_folder() as home, dev(home, "--no-model") as running:
        scale.say(f"a run of {items} items on {box.name} (1 min)")
        shown = _run(running, box, items)
        memory = running.memory()
    scale.say(summary(shown))
    # What a run leaves resident is more than what a start does: the same figures as in start, under names of their own.
    return [*figures(shown), *memory_figures([memory], suffix="_after_run")]


def _run(running: Running, box: Machine, items: int) -> dict[str, Any]:
    """The run's document. Waited for by one process that follows the events: asking again and again would disturb."""
    running.command("target", "add", "box", "--lab", box.name, "--json")
    words = ["stig-rhel9", "--target", "box", "--limit", str(items), "--json", "--no-watch"]
    run_id = running.command("run", *words)["run_id"]
    running.anneal.cli("watch", run_id, timeout=_RUN_S)
    shown: dict[str, Any] = running.command("show", run_id, "--json")
    if shown["state"] != "finished":
        raise BenchError(f"the run ended as {shown['state']}: {shown['reason']}")
    return shown


def carried_out(shown: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The attempts that touched the target: a refused one costs next to nothing and would flatter the figures."""
    return [attempt for item in shown["items"] for attempt in item["story"] if "apply" in attempt["parts"]]


def figures(shown: Mapping[str, Any]) -> list[Figure]:
    """The whole attempt, and each part over the attempts that had it."""
    attempts = carried_out(shown)
    return [
        Figure(name="attempt_s", unit="s", values=tuple(attempt["seconds"] for attempt in attempts)),
        *(Figure(name=f"{part}_s", unit="s", values=_part(attempts, part)) for part in PARTS),
    ]


def _part(attempts: Iterable[Mapping[str, Any]], part: str) -> tuple[float, ...]:
    return tuple(attempt["parts"][part] for attempt in attempts if part in attempt["parts"])


def summary(shown: Mapping[str, Any]) -> str:
    """One line on what the run did, and the share of each part in the time of all attempts."""
    attempts = carried_out(shown)
    whole = sum(attempt["seconds"] for attempt in attempts) or 1.0
    shares = ", ".join(f"{part} {sum(_part(attempts, part)) / whole:.0%}" for part in PARTS)
    return (
        f"{len(shown['items'])} items, {len(attempts)} attempts carried out, {shown['score']['fixed']} fixed, "
        f"{shown['seconds']:.0f} s in all, {whole:.0f} s of it in attempts: {shares}"
    )
