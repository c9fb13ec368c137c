"""What runs ask of people, as tables and as one question in full."""

from collections.abc import Sequence

from anneal.supervisor.v1.control_pb2 import Approval, GetApprovalResponse
from rich.console import Console

from anneal_cli.text import when
from anneal_cli.views.show import plain_table

_STYLE = {"asked": "cyan", "granted": "green", "denied": "red", "expired": "yellow", "void": "dim"}


def print_approvals(out: Console, found: Sequence[Approval]) -> None:
    """One line a question, and what to do next."""
    if not found:
        out.print("nothing is asked of anybody")
        return
    table = plain_table(("id", False), ("action", False), ("script", False), ("target", False), ("state", False))
    for one in found:
        by = f" by {one.by}" if one.by else f", until {when(one.expires_at)}" if one.state == "asked" else ""
        table.add_row(one.id, one.title, one.action_hash[:12], one.target, f"[{_STYLE[one.state]}]{one.state}[/]{by}")
    out.print(table)
    if asked := next((one for one in found if one.state == "asked"), None):
        out.print(f"\nnext  anneal approvals show {asked.id}", markup=False)


def print_approval(out: Console, found: GetApprovalResponse) -> None:
    """The question with the script as it would run."""
    one = found.approval
    out.print(f"[bold]{one.state}[/]  {one.item_id}, attempt {one.attempt} of run {one.run_id} on {one.target}")
    out.print(f"  {found.item_title}", markup=False)
    out.print(f"  action {one.title} ({found.source}), {found.action_kind}, sha256 {one.action_hash}", markup=False)
    if found.policy:
        out.print(f"  policy {found.policy}", markup=False)
    said = f"{one.state} by {one.by}" if one.by else f"asked {when(one.asked_at)}, until {when(one.expires_at)}"
    out.print(f"  {said}{f': {one.reason}' if one.reason else ''}\n", markup=False)
    out.print(found.content.rstrip("\n") or "(its script is no longer on the item's ladder)", markup=False)
    if one.state == "asked":
        out.print(f"\nnext  anneal approvals grant {one.id} --hash {one.action_hash[:12]}", markup=False)
        out.print(f"      anneal approvals deny {one.id} --reason '...'", markup=False)
