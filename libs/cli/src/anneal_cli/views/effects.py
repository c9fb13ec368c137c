"""What a run did to its target, as a table."""

from collections.abc import Sequence

from anneal.checkpoint.v1.checkpoint_pb2 import Effect
from rich.console import Console
from rich.markup import escape

from anneal_cli.exits import CliError, ExitCode
from anneal_cli.text import when
from anneal_cli.views.show import plain_table

_STYLE = {"intended": "cyan", "started": "cyan", "applied": "green", "reverted": "dim", "unknown": "bold red"}
# As much of a key as reasons and logs name.
_KEY = 12


def check_state(state: str) -> None:
    """Raises CliError for a word that is no state."""
    if state and state not in _STYLE:
        raise CliError(message=f"--state is one of {', '.join(_STYLE)}", code=ExitCode.USAGE, field="--state")


def print_effects(out: Console, found: Sequence[Effect]) -> None:
    """One line an effect; what to do about those that nobody knows the end of."""
    if not found:
        out.print("no effect is on record")
        return
    table = plain_table(
        ("key", False), ("item", False), ("try", True), ("what", False), ("state", False), ("exit", True)
    )
    for one in found:
        what = f"undo of {one.undoes[:_KEY]}" if one.undoes else "apply"
        state = f"[{_STYLE.get(one.state, '')}]{one.state}[/]"
        state += f" {escape(one.detail)}" if one.state == "reverted" else ""
        exit_code = str(one.exit_code) if one.state == "applied" else ""
        table.add_row(one.key[:_KEY], one.item_id, str(one.attempt), what, state, exit_code)
    out.print(table)
    for one in (one for one in found if one.state == "unknown"):
        out.print(f"\nunknown  {one.item_id}, intended {when(one.intended_at)}: {one.detail}", markup=False)
        out.print(f"  next: look at /var/lib/anneal/effects/{one.key} on the target", markup=False, soft_wrap=True)
        out.print("        docs/runbooks/unknown-effect.md says what for", markup=False)
