"""Announcements of one run that come together are one announcement."""

import json

from anneal_supervisor.news import announcement, is_news, merged
from anneal_supervisor.store import Outgoing


def test_announcements_are_merged_by_run_and_stand_for_all_their_rows() -> None:
    rows = [
        (7, announcement("run-1", 3, 4)),
        (8, announcement("run-2", 1, 1)),
        (9, announcement("run-1", 5, 9)),
    ]
    (one, its_rows), (other, other_rows) = merged(rows)
    assert (one.subject, one.msg_id, its_rows) == ("anneal.events.run-1", "run-1/9", [7, 9])
    assert json.loads(one.data) == {"run_id": "run-1", "first": 3, "last": 9}
    assert (other, other_rows) == (rows[1][1], [8])


def test_a_command_is_no_news() -> None:
    assert is_news(announcement("run-1", 1, 1))
    assert not is_news(Outgoing(subject="anneal.work.action.apply", msg_id="m", data=b""))
