"""`anneal fork`: what is sent, what is shown, and the exit codes."""

import getpass
import json

import pytest
from anneal.common.v1.common_pb2 import Event
from anneal.supervisor.v1.supervisor_pb2 import Origin
from anneal_cli.exits import ExitCode
from anneal_runtime.errors import FailedPrecondition, Leased

from tests.integration.cli.conftest import Anneal
from tests.support.fake_gateway import FakeGateway
from tests.support.sample_run import sample_run

RUN_ID = sample_run().run_id


def test_a_fork_says_from_where_with_which_bounds_and_who_asks(anneal: Anneal, gateway: FakeGateway) -> None:
    answer = anneal(
        "fork", "last", "--at", "42", "--model", "big", "--set", "max_attempts=5", "--set", "time_budget=1h"
    )
    assert answer.code == 0
    assert f"run-fork: forked from {RUN_ID} after event 42" in answer.out
    assert "next: anneal watch run-fork" in answer.out
    (asked,) = gateway.forked
    assert (asked.run_id, asked.seq, asked.model_profile, asked.by) == (RUN_ID, 42, "big", getpass.getuser())
    assert dict(asked.set) == {"max_attempts": "5", "time_budget": "1h"}
    assert asked.idempotency_key
    said = json.loads(anneal("fork", "last", "--at", "7", "--json").out)
    assert said == {"run_id": "run-fork", "parent": RUN_ID, "seq": 7}


def begun(gateway: FakeGateway, *item_ids: str) -> None:
    run = gateway.runs[RUN_ID]
    for item_id in item_ids:
        payload = json.dumps({"type": "attempt_started", "item_id": item_id}).encode()
        gateway.put(run, Event(run_id=RUN_ID, type="attempt_started", payload_json=payload))


def test_the_moment_before_an_attempt_is_found_by_the_rules_name(anneal: Anneal, gateway: FakeGateway) -> None:
    begun(gateway, "audit_rule_00", "audit_rule_01", "audit_rule_00", "audit_rule_01")
    assert anneal("fork", "last", "--before", "audit_rule_01").code == 0
    run = gateway.runs[RUN_ID]
    run.origin.CopyFrom(Origin(run_id="run-0", seq=2))
    assert anneal("fork", "last", "--before", "audit_rule_01").code == 0
    assert [request.seq for request in gateway.forked] == [1, 3]
    untried = anneal("fork", "last", "--before", "ssh_rule_00")
    assert untried.code == ExitCode.NOT_FOUND
    assert f"nothing was tried at ssh_rule_00 in {RUN_ID}" in untried.err


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ([], "--at"),
        (["--at", "4", "--before", "x"], "--at"),
        (["--at", "4", "--set", "max_attempts"], "--set"),
        (["--at", "4", "--set", "=3"], "--set"),
    ],
)
def test_a_fork_from_nowhere_or_with_half_a_bound_is_refused(
    anneal: Anneal, gateway: FakeGateway, options: list[str], field: str
) -> None:
    answer = anneal("fork", "last", *options)
    assert answer.code == ExitCode.USAGE and field in answer.err
    assert not gateway.forked
    assert anneal("fork", "last", "--at", "0").code == ExitCode.USAGE


@pytest.mark.parametrize(
    "error", [Leased("box is leased by run-7", field="target"), FailedPrecondition("no longer kept", field="seq")]
)
def test_what_the_server_refuses_is_said_with_exit_code_5(
    anneal: Anneal, gateway: FakeGateway, error: FailedPrecondition
) -> None:
    gateway.error = error
    answer = anneal("fork", RUN_ID, "--at", "4")
    assert answer.code == ExitCode.CONFLICT
    assert error.message in answer.err and f"[{error.field}]" in answer.err


def test_where_a_run_comes_from_is_shown(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.runs[RUN_ID].origin.CopyFrom(Origin(run_id="run-0", seq=12, generation=3, by="ann"))
    assert "forked from run-0 after event 12, by ann" in anneal("show", "last").out
