"""`anneal queue`: figures and parked messages for people and programs, and exit codes that tell refusals apart."""

import json

import pytest
from anneal.supervisor.v1.queues_pb2 import GetParkedResponse, ParkedMessage, Queue
from anneal_cli.exits import ExitCode
from anneal_runtime import errors

from tests.integration.cli.conftest import Anneal
from tests.support.fake_gateway import FakeGateway

CRASHED, FOREIGN = "pk-1a2b3c4d5e6f", "pk-99ffee000000"


@pytest.fixture(autouse=True)
def parked(gateway: FakeGateway) -> None:
    """Four classes with figures; one parked command that its run gave up on, one message of no run."""
    gateway.queues.queues.extend(
        [
            Queue(work_class="evaluation", depth=3, in_flight=2, redelivered=1, parked=1, idle=0),
            Queue(work_class="model", depth=0, in_flight=0, idle=2),
            Queue(work_class="action", depth=0, in_flight=1, idle=1),
            Queue(work_class="post", depth=7, in_flight=1, parked=1),
        ]
    )
    crashed = ParkedMessage(
        id=CRASHED,
        work_class="evaluation",
        subject="anneal.work.evaluation.verify",
        msg_id="run-0123456789ab/c0ffee",
        run_id="run-0123456789ab",
        command_id="c0ffee",
        reason="crashed",
        detail="KeyError at domain.py:41 verify",
        deliveries=3,
        doer="host/17",
        state="parked",
        size=17,
    )
    crashed.parked_at.seconds = 1_790_000_000
    gateway.parked[CRASHED] = GetParkedResponse(
        message=crashed, data=b'{"kind":"verify"}', why_not="run run-0123456789ab no longer waits for this command"
    )
    foreign = ParkedMessage(
        id=FOREIGN, work_class="post", subject="anneal.work.post.x", reason="unreadable", state="parked", size=5
    )
    gateway.parked[FOREIGN] = GetParkedResponse(message=foreign, data=b"\x1b[2Jx\xff", may_retry=True)


def test_the_classes_come_with_their_figures_and_then_what_is_parked(anneal: Anneal) -> None:
    answer = anneal("queue", "list")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if line]
    assert lines[0] == ["class", "depth", "in", "flight", "redelivered", "parked", "idle"]
    assert lines[1:5] == [
        ["evaluation", "3", "2", "1", "1", "0"],
        ["model", "0", "0", "0", "0", "2"],
        ["action", "0", "1", "0", "0", "1"],
        ["post", "7", "1", "0", "1", "0"],
    ]
    assert CRASHED in answer.out
    assert f"next: anneal queue show {CRASHED}" in answer.out


def test_a_program_gets_numbers(anneal: Anneal) -> None:
    found = json.loads(anneal("queue", "list", "--json").out)
    assert found["queues"][0] == {
        "work_class": "evaluation",
        "depth": 3,
        "in_flight": 2,
        "redelivered": 1,
        "parked": 1,
        "idle": 0,
    }
    first = found["parked"][0]
    assert (first["id"], first["reason"], first["deliveries"]) == (CRASHED, "crashed", 3)
    assert len(json.loads(anneal("queue", "list", "-n", "1", "--json").out)["parked"]) == 1


def test_parked_messages_are_listed_although_the_figures_cannot_be_had(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.queues.problem = "NATS does not answer"
    answer = anneal("queue", "list")
    assert answer.code == ExitCode.NOT_HELD
    assert "cannot be had: NATS does not answer" in answer.out
    assert CRASHED in answer.out
    assert ["evaluation", "-", "-", "-", "1", "-"] in [line.split() for line in answer.out.splitlines()]


def test_a_parked_message_is_shown_with_its_reason_and_content(anneal: Anneal) -> None:
    answer = anneal("queue", "show", CRASHED)
    assert answer.code == 0
    assert "crashed: KeyError at domain.py:41 verify" in answer.out
    assert "no: run run-0123456789ab no longer waits" in answer.out
    assert '"kind": "verify"' in answer.out
    assert f"next: anneal queue drop {CRASHED}" in answer.out
    data = json.loads(anneal("queue", "show", CRASHED, "--json").out)
    assert (data["message"]["deliveries"], data["command"], data["may_retry"]) == (3, {"kind": "verify"}, False)


def test_content_that_is_not_ours_cannot_drive_the_terminal(anneal: Anneal) -> None:
    answer = anneal("queue", "show", FOREIGN)
    assert "\x1b" not in answer.out
    assert "[2Jx" in answer.out
    assert f"next: anneal queue retry {FOREIGN}" in answer.out


def test_a_message_may_be_sent_again_once(anneal: Anneal, gateway: FakeGateway) -> None:
    answer = anneal("queue", "retry", FOREIGN)
    assert answer.code == 0
    assert gateway.parked[FOREIGN].message.state == "retried"
    assert f"{FOREIGN}: sent again" in answer.out


def test_sending_again_what_nobody_waits_for_is_a_conflict_with_a_next_step(
    anneal: Anneal, gateway: FakeGateway
) -> None:
    answer = anneal("queue", "retry", CRASHED)
    assert answer.code == ExitCode.CONFLICT
    assert "no longer waits for this command" in answer.err
    assert f"next: anneal queue drop {CRASHED}" in answer.err
    assert gateway.parked[CRASHED].message.state == "parked"
    assert json.loads(anneal("queue", "drop", CRASHED, "--json").out)["message"]["state"] == "dropped"


def test_an_id_may_be_given_by_its_beginning_if_that_is_enough(anneal: Anneal, gateway: FakeGateway) -> None:
    assert anneal("queue", "drop", "pk-1a").code == 0
    assert gateway.parked[CRASHED].message.state == "dropped"
    gateway.parked[CRASHED].message.state = "parked"
    unclear = anneal("queue", "drop", "pk-")
    assert unclear.code == ExitCode.USAGE
    assert CRASHED in unclear.err
    missing = anneal("queue", "show", "pk-zz")
    assert missing.code == ExitCode.NOT_FOUND
    assert "anneal queue list" in missing.err


@pytest.mark.parametrize("args", [("list",), ("show", CRASHED), ("retry", CRASHED), ("drop", CRASHED)])
def test_without_an_answer_every_command_says_how_to_start_anneal(
    anneal: Anneal, gateway: FakeGateway, args: tuple[str, ...]
) -> None:
    gateway.error = errors.Unavailable("away")
    answer = anneal("queue", *args)
    assert answer.code == ExitCode.UNREACHABLE
    assert "anneal dev" in answer.err
