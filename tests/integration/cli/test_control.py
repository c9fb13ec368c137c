"""`anneal pause`, `resume`, `approvals`, `replay`: what is sent, what is shown, and the exit codes."""

import getpass
import json

import pytest
from anneal.supervisor.v1.control_pb2 import Approval, ReplayRunResponse
from anneal_cli.exits import ExitCode

from tests.integration.cli.conftest import Anneal
from tests.support.fake_gateway import FakeGateway
from tests.support.sample_run import sample_run

RUN_ID = sample_run().run_id
ASKED = f"{RUN_ID}/wipe_disk/1"


@pytest.fixture(autouse=True)
def asked(gateway: FakeGateway) -> Approval:
    one = Approval(
        id=ASKED, run_id=RUN_ID, item_id="wipe_disk", attempt=1, action_hash="ab" * 32, title="vendor fix",
        target="web1", skill="stig", state="asked",
    )  # fmt: skip
    one.asked_at.seconds, one.expires_at.seconds = 1_790_000_000, 1_790_003_600
    gateway.approvals[ASKED] = one
    return one


def test_pause_and_resume_say_who_asks_and_what_is_next(anneal: Anneal, gateway: FakeGateway) -> None:
    held = anneal("pause", "last", "--reason", "lunch")
    assert held.code == 0 and f"next: anneal resume {RUN_ID}" in held.out
    assert json.loads(anneal("resume", "last", "--json").out) == {"run_id": RUN_ID, "state": "executing"}
    me = getpass.getuser()
    assert gateway.controlled == [("pause", RUN_ID, me, "lunch"), ("resume", RUN_ID, me, "")]


def test_what_is_asked_is_listed_with_its_next_step(anneal: Anneal, gateway: FakeGateway) -> None:
    answer = anneal("approvals", "list")
    assert answer.code == 0
    assert ASKED in answer.out.replace("\n", "") or "wipe_disk/1" in answer.out
    assert "approvals show" in answer.out
    assert [a["id"] for a in json.loads(anneal("approvals", "list", "--json").out)] == [ASKED]
    gateway.approvals.clear()
    assert anneal("approvals", "list").out == "nothing is asked of anybody\n"


def test_the_script_is_shown_as_it_would_run(anneal: Anneal) -> None:
    answer = anneal("approvals", "show", ASKED)
    assert answer.code == 0
    assert "#!/bin/bash\nmkfs /dev/sdx\n" in answer.out
    assert "ab" * 32 in answer.out.replace("\n", "")
    missing = anneal("approvals", "show", "no/such/1")
    assert (missing.code, "anneal approvals list" in missing.err) == (ExitCode.NOT_FOUND, True)


@pytest.mark.parametrize(("word", "state"), [("grant", "granted"), ("deny", "denied")])
def test_the_first_answer_counts_and_the_second_is_told(
    anneal: Anneal, gateway: FakeGateway, word: str, state: str
) -> None:
    assert anneal("approvals", word, ASKED, "--hash", "abababab", "--reason", "r").code == 0
    assert gateway.approvals[ASKED].state == state
    late = anneal("approvals", "grant", ASKED)
    assert late.code == ExitCode.CONFLICT
    assert f"too late: it is {state} by {getpass.getuser()}" in late.err


@pytest.mark.parametrize("seen", ["cdcdcdcd", "ab"], ids=["another", "too short"])
def test_an_action_that_the_person_has_not_seen_is_not_agreed_to(
    anneal: Anneal, gateway: FakeGateway, seen: str
) -> None:
    answer = anneal("approvals", "grant", ASKED, "--hash", seen)
    assert answer.code == ExitCode.CONFLICT and "--hash" in answer.err
    assert gateway.approvals[ASKED].state == "asked"


def test_replay_tells_that_nothing_differs_or_shows_the_difference(anneal: Anneal, gateway: FakeGateway) -> None:
    same = anneal("replay", "last")
    assert same.code == 0 and "9 events, 5 decisions made again" in same.out
    gateway.replayed = ReplayRunResponse(events=4, decisions=2, seq=5, reason="another deadline", diff="--- log\n+x")
    other = anneal("replay", "last")
    assert other.code == ExitCode.NOT_HELD
    assert "event 5: another deadline" in other.out and "  +x" in other.out
    assert json.loads(anneal("replay", "last", "--json").out)["seq"] == 5
