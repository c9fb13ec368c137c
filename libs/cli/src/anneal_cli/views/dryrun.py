"""The plan of a dry run: each script with its class, its source and the policy's word. Nothing was touched."""

from collections import Counter
from collections.abc import Awaitable, Callable

from anneal.supervisor.v1.supervisor_pb2 import Action, Item, Run
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from anneal_cli.safe import visible
from anneal_cli.text import counts, has_ended, short_id

_CLASS_STYLE = {"read_only": "green", "reversible": "cyan", "destructive": "bold red", "forbidden": "bold red"}


async def print_plan(out: Console, run: Run, blob: Callable[[str], Awaitable[bytes]]) -> None:
    """Every item with its ladder, scripts in full. blob fetches a script by its name."""
    scripts: dict[str, str] = {}
    for item in run.items:
        for action in item.plan:
            if action.blob and action.blob not in scripts:
                scripts[action.blob] = visible((await blob(action.blob)).decode(errors="replace"))
        _print_item(out, item, scripts)
    _print_end(out, run)


def _print_item(out: Console, item: Item, scripts: dict[str, str]) -> None:
    out.print()
    out.print(Text.assemble((item.id, "bold"), f"  {item.severity}  ", (item.title, "dim")))
    if not item.plan:
        reason = item.reason or "no script is known; a model or a person would have to write one"
        out.print(Padding(Text(reason, style="yellow"), (0, 0, 0, 2), expand=False))
    for number, action in enumerate(item.plan, start=1):
        out.print(Padding(_headline(number, action), (0, 0, 0, 2), expand=False))
        if action.blob:
            out.print(Padding(Text(scripts[action.blob].rstrip(), style="dim"), (0, 0, 0, 6), expand=False))


def _headline(number: int, action: Action) -> Text:
    style = _CLASS_STYLE.get(action.mutability, "yellow")
    word = action.policy or ("allowed" if action.allowed else "not allowed")
    line = Text(f"{number}. {action.source} {action.kind}: {action.title}  [")
    line.append(action.mutability, style=style).append("]  policy: ")
    return line.append(word, style="" if action.allowed else "bold red")


def _print_end(out: Console, run: Run) -> None:
    by_source = Counter(action.source for item in run.items for action in item.plan)
    refused = sum(1 for item in run.items for action in item.plan if not action.allowed)
    bare = sum(1 for item in run.items if not item.plan)
    parts = ", ".join(f"{number} {source}" for source, number in by_source.items()) or "none"
    out.print(
        f"\n{len(run.items)} items, scripts: {parts}; {refused} not allowed; {bare} items without one", markup=False
    )
    if run.score.HasField("before"):
        out.print(f"the target now: {counts(run.score.before)}", markup=False)
    if has_ended(run):
        ran = sum(1 for item in run.items for attempt in item.attempts if attempt.ending != "refused")
        said = "Dry run: touched nothing." if not ran else f"{ran} scripts ran, though this was a dry run: report this."
        out.print(said, style="bold green" if not ran else "bold red")
        out.print(f"\nnext  anneal run {run.spec.skill} --target {run.spec.target} --watch", style="dim", markup=False)
    else:
        out.print(f"not ended yet: {run.state}\n\nnext  anneal watch {short_id(run.run_id)}", style="dim", markup=False)
