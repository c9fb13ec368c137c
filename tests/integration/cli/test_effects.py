"""`anneal effects`: what is shown of the ledger, and where to go on when nobody knows the end of something."""

import json

import pytest
from anneal.checkpoint.v1.checkpoint_pb2 import Effect
from anneal_cli.exits import ExitCode

from tests.integration.cli.conftest import Anneal
from tests.support.fake_gateway import FakeGateway
from tests.support.sample_run import sample_run

RUN_ID = sample_run().run_id
KEY, UNDO = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.fixture(autouse=True)
def ledger(gateway: FakeGateway) -> list[Effect]:
    done = Effect(key="aa" * 32, run_id=RUN_ID, item_id="good", attempt=1, state="applied", exit_code=3)
    lost = Effect(key=KEY, run_id=RUN_ID, item_id="bad", attempt=2, state="unknown", detail="its undo [ended] with 7")
    undo = Effect(key=UNDO, run_id=RUN_ID, item_id="bad", attempt=2, state="applied", exit_code=7, undoes=KEY)
    for one in (done, lost, undo):
        one.intended_at.seconds = 1_790_000_000
    gateway.effects[RUN_ID] = [done, lost, undo]
    return gateway.effects[RUN_ID]


def test_effects_are_listed_in_their_order_and_an_undo_names_what_it_takes_back(anneal: Anneal) -> None:
    answer = anneal("effects", "last")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["aaaaaaaaaaaa", KEY[:12], UNDO[:12]]
    assert f"undo of {KEY[:12]}" in lines[3]


def test_what_is_unknown_comes_with_the_next_step(anneal: Anneal) -> None:
    answer = anneal("effects", "last")
    assert "its undo [ended] with 7" in answer.out
    assert f"/var/lib/anneal/effects/{KEY}" in answer.out.replace("\n", "")
    assert "unknown-effect.md" in answer.out


def test_nothing_unknown_wants_no_next_step(anneal: Anneal, gateway: FakeGateway) -> None:
    assert "next" not in anneal("effects", "last", "--state", "applied").out
    gateway.effects.clear()
    assert anneal("effects", "last").out == "no effect is on record\n"


def test_programs_get_all_of_it_and_may_ask_for_one_state(anneal: Anneal) -> None:
    found = json.loads(anneal("effects", "last", "--json").out)
    assert [e["state"] for e in found] == ["applied", "unknown", "applied"]
    assert found[2]["undoes"] == KEY
    (unknown,) = json.loads(anneal("effects", "last", "--json", "--state", "unknown").out)
    assert unknown["key"] == KEY


def test_a_state_that_there_is_not_is_refused_before_anything_is_asked(anneal: Anneal) -> None:
    answer = anneal("effects", "last", "--state", "undone")
    assert answer.code == ExitCode.USAGE
    assert "--state" in answer.err
