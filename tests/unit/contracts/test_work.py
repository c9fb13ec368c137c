"""Classes of work and the ids of messages."""

from typing import get_args

import pytest
from anneal_contracts.work import SUBJECT_BY_KIND, Command, WorkClass, command_msg_id, command_of, sent_again


def test_every_kind_of_command_belongs_to_one_class() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(Command)[0])}
    assert kinds == set(SUBJECT_BY_KIND)
    homes = {kind: [c for c in WorkClass if s.startswith(c.subjects[:-1])] for kind, s in SUBJECT_BY_KIND.items()}
    assert all(len(found) == 1 for found in homes.values()), homes


def test_a_message_id_tells_run_and_command_however_often_it_was_sent() -> None:
    first = command_msg_id("run-1", "c0ffee")
    again = sent_again(first, "a")
    assert {command_of(i) for i in (first, again, sent_again(again, "b"))} == {("run-1", "c0ffee")}
    assert len({first, again, sent_again(again, "b")}) == 3


@pytest.mark.parametrize("foreign", ["", "m1", "run-1/", "m1+a/b"])
def test_an_id_that_is_no_commands_belongs_to_no_run(foreign: str) -> None:
    assert command_of(foreign) == ("", "")
