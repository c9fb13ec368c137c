"""A rung is judged by its script, by its undo, and by who wrote it first."""

import pytest
from anneal_contracts.facts import Action, FixSource
from anneal_worker.gate import decided


def test_an_undo_that_would_hurt_refuses_the_action() -> None:
    action = Action(source=FixSource.CURATED, kind="bash", title="t", content="echo x > /etc/issue", undo="rm -rf /etc")
    decision = decided(action)
    assert not decision.allowed
    assert decision.rule == "deletes_data"
    assert decision.explanation.startswith("The script that takes it back: ")
    assert decided(action.model_copy(update={"undo": "rm -f /etc/issue.new"})).allowed


@pytest.mark.parametrize(("origin", "allowed"), [("vendor", True), ("curated", True), ("model", False), ("", False)])
def test_a_recalled_script_is_judged_like_its_first_author(origin: str, allowed: bool) -> None:
    script = "tool=/usr/bin/systemctl\n$tool enable chronyd\n"
    action = Action(source=FixSource.RECALLED, kind="bash", title="t", content=script, origin=origin)
    assert decided(action).allowed is allowed
