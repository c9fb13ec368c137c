"""What the Architect, the Reflector and a Worker with probes may answer, and that a turn has one outcome."""

import json
from typing import Any

import jsonschema
import pytest
from anneal_contracts.architect import ARCHITECT_DECISION, ITEM_PLAN, item_choice
from anneal_contracts.base import Candidate
from anneal_contracts.facts import FixSource, Mutability, ProbeCall
from anneal_contracts.probing import Question, WorkerContract, key
from anneal_contracts.roles import REFLECTION, ContractError, RoleContract
from anneal_contracts.turns import Proposed
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.unit.contracts.test_roles import GOOD


class OnePath(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str = Field(pattern="^/", description="Absolute path.")


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


QUESTIONS = (
    Question(name="read_file", description="Tells a file.", arguments=OnePath),
    Question(name="show_check", description="Tells the check.", arguments=Nothing),
)
WORKER = WorkerContract(QUESTIONS, 2)
ASKS = {"probes": [{"tool": "read_file", "path": "/etc/x"}, {"tool": "show_check"}], "action": None}
ACTS = {"probes": [], "action": GOOD}


def broken(contract: RoleContract[Any], answer: dict[str, Any], **context: Any) -> str:
    with pytest.raises(ContractError) as caught:
        contract.parse(json.dumps(answer), context=context)
    return str(caught.value)


@pytest.mark.parametrize("contract", [WORKER, WorkerContract(QUESTIONS[:1], 1)])
def test_a_worker_asks_or_acts_and_the_schema_says_the_same(contract: WorkerContract) -> None:
    asks = {**ASKS, "probes": ASKS["probes"][: contract.most]}  # type: ignore[index]
    for answer in (asks, ACTS):
        jsonschema.validate(answer, contract.schema)
    assert "$ref" not in json.dumps(contract.schema) and "discriminator" not in json.dumps(contract.schema)
    assert contract.parse(json.dumps(asks)).calls()[0] == ProbeCall(tool="read_file", arguments={"path": "/etc/x"})
    action = contract.parse(json.dumps(ACTS)).action
    assert action is not None and action.title == "Add it"


def test_questions_and_an_action_at_once_are_refused_and_so_is_neither() -> None:
    assert "either probes or one action" in broken(WORKER, {**ASKS, "action": GOOD})
    assert "either probes or one action" in broken(WORKER, {"probes": [], "action": None})


@pytest.mark.parametrize(
    ("probes", "told"),
    [
        ([{"tool": "run_shell", "path": "/x"}], "read_file"),
        ([{"tool": "read_file", "path": "x"}], "probes.0"),
        ([{"tool": "read_file", "path": "/x", "mode": "w"}], "mode"),
        ([{"tool": "read_file", "path": f"/{n}"} for n in range(3)], "at most 2"),
        ([{"tool": "show_check"}, {"tool": "show_check"}], "given twice"),
    ],
)
def test_a_question_that_no_tool_takes_is_told_by_its_place(probes: list[dict[str, str]], told: str) -> None:
    assert told in broken(WORKER, {"probes": probes, "action": None})


def test_a_question_that_has_its_answer_is_not_asked_again() -> None:
    asked = {key(ProbeCall(tool="read_file", arguments={"path": "/etc/x"}))}
    assert "read_file(path=/etc/x) was asked before" in broken(WORKER, ASKS, asked=asked)


def test_the_action_of_a_worker_with_probes_keeps_the_whole_contract_of_an_action() -> None:
    assert "script: does nothing" in broken(WORKER, {"probes": [], "action": {**GOOD, "script": "exit 0"}})
    assert "was tried before" in broken(WORKER, ACTS, tried={str(GOOD["script"]).strip()})
    assert "made an earlier attempt fail" in broken(WORKER, ACTS, banned=("sed -i s/a/b/",))


def test_the_prompt_tells_every_tool_with_its_arguments_and_every_field_of_an_action() -> None:
    told = WORKER.render()
    assert "- read_file(path: Absolute path.): Tells a file." in told
    assert "- show_check(): Tells the check." in told
    assert all(f"- {name} (" in told for name in GOOD)
    assert "at most 2 questions" in told


PLAN = {"diagnosis": "d", "approach": "a", "steps": ["one"], "look_at": [], "missing_input": ""}
REVIEW = {
    "decision": "CONTINUE", "reason": "r", "diagnosis": "", "approach": "", "steps": [], "look_at": [],
    "missing_input": "",
}  # fmt: skip


def test_a_plan_is_a_way_or_what_is_missing() -> None:
    assert ITEM_PLAN.parse(json.dumps(PLAN)).steps == ("one",)
    assert ITEM_PLAN.parse(json.dumps({**PLAN, "approach": "", "missing_input": "the log host"})).missing_input
    for changes in ({"approach": ""}, {"missing_input": "x"}):
        assert "approach" in broken(ITEM_PLAN, {**PLAN, **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"decision": "RETRY"}, "decision"),
        ({"decision": "PIVOT"}, "approach"),
        ({"approach": "another"}, "approach"),
        ({"missing_input": "x"}, "missing_input"),
        ({"reason": ""}, "reason"),
    ],
)
def test_a_second_look_has_what_its_decision_needs_and_nothing_else(changes: dict[str, str], field: str) -> None:
    for good in ({}, {"decision": "PIVOT", "approach": "b"}, {"decision": "ESCALATE", "missing_input": "x"}):
        ARCHITECT_DECISION.parse(json.dumps({**REVIEW, **good}))
    assert field in broken(ARCHITECT_DECISION, {**REVIEW, **changes})


def test_only_what_is_ready_can_be_chosen() -> None:
    contract = item_choice(["rule_1", "rule_2"])
    assert contract.parse('{"item_id": "rule_2", "reason": "r"}').item_id == "rule_2"
    assert contract.schema["properties"]["item_id"]["enum"] == ["rule_1", "rule_2"]
    assert "item_id" in broken(contract, {"item_id": "rule_3", "reason": "r"})


def test_a_reflection_blames_only_what_the_script_holds() -> None:
    told = {
        "words": "It was tried and it failed again.", "mechanism": "m", "lesson": "l", "bans": [],
        "banned_text": ["sed -i s/a/b/"], "certainty": "high",
    }  # fmt: skip
    assert REFLECTION.parse(json.dumps(told), context={"script": GOOD["script"]}).banned_text == ("sed -i s/a/b/",)
    assert "no piece of the script" in broken(REFLECTION, told, script="echo")


def test_a_turn_ends_in_an_action_or_in_questions_and_never_in_both() -> None:
    action = Candidate(
        hash="h", blob="b", source=FixSource.MODEL, kind="bash", title="t", mutability=Mutability.REVERSIBLE
    )
    with pytest.raises(ValidationError, match="either an action or questions"):
        Proposed(command_id="c", candidate=action, probes=(ProbeCall(tool="show_check"),))
