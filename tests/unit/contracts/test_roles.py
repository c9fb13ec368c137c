"""The contracts of the model roles."""

import json
from typing import Any

import jsonschema
import pytest
from anneal_contracts.architect import ARCHITECT_DECISION, ITEM_PLAN, item_choice
from anneal_contracts.roles import ACTION_PROPOSAL, PLAIN_WORDS, REFLECTION, ContractError, RoleContract, script_problem

GOOD: dict[str, Any] = {
    "analysis": "The setting is absent.",
    "missing_input": "",
    "title": "Add it",
    "script": "#!/bin/bash\nset -euo pipefail\nsed -i s/a/b/ /etc/x\n",
    "undo": "",
    "expected_effect": "It is there.",
    "risk": "low",
    "risks_reach": False,
    "needs_reboot": False,
}


def _fields(changes: dict[str, Any], **context: Any) -> list[str]:
    with pytest.raises(ContractError) as caught:
        ACTION_PROPOSAL.parse(json.dumps({**GOOD, **changes}), context=context)
    return [e.field for e in caught.value.errors]


def test_a_good_answer_passes_schema_and_validation() -> None:
    jsonschema.validate(GOOD, ACTION_PROPOSAL.schema)
    assert ACTION_PROPOSAL.parse(json.dumps(GOOD)).title == "Add it"


CONTRACTS: list[RoleContract[Any]] = [
    ACTION_PROPOSAL,
    REFLECTION,
    PLAIN_WORDS,
    ITEM_PLAN,
    ARCHITECT_DECISION,
    item_choice(["a", "b"]),
]


@pytest.mark.parametrize("contract", CONTRACTS, ids=[c.name for c in CONTRACTS])
def test_a_schema_is_closed_flat_and_complete_for_every_decoder(contract: Any) -> None:
    schema = contract.schema
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"])
    assert "$ref" not in json.dumps(schema)
    for name, spec in schema["properties"].items():
        assert spec["description"]
        # The server does not show descriptions to the model: the prompt has to.
        assert f"- {name} (" in contract.render()
        assert spec["description"] in contract.render()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"risk": "none"}, "risk"),
        ({"risks_reach": "maybe"}, "risks_reach"),
        ({"extra": 1}, "extra"),
        ({"title": " "}, "title"),
        ({"script": ""}, "script"),
        ({"script": "```bash\nls\n```"}, "script"),
        ({"script": "#!/bin/bash\nexit 0\n"}, "script"),
        ({"script": "rm x\x00"}, "script"),
        ({"script": "<|tool_call>call:x{}<tool_call|>"}, "script"),
        ({"undo": "exit 0"}, "undo"),
        ({"missing_input": "the log host"}, "script"),
    ],
)
def test_a_broken_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert _fields(changes) == [field]


def test_every_broken_field_is_told_at_once() -> None:
    answer = {"analysis": "x", "script": 7, "risk": "none", "extra": True}
    with pytest.raises(ContractError) as caught:
        ACTION_PROPOSAL.parse(json.dumps(answer))
    told = ACTION_PROPOSAL.feedback(caught.value.errors)
    for field in ("title", "script", "risk", "extra", "undo", "missing_input"):
        assert f"- {field}: " in told


def test_a_target_without_snapshots_wants_an_undo() -> None:
    assert _fields({}, needs_undo=True) == ["undo"]
    answer = json.dumps({**GOOD, "undo": "sed -i s/b/a/ /etc/x"})
    assert ACTION_PROPOSAL.parse(answer, context={"needs_undo": True}).undo


def test_missing_input_needs_no_script() -> None:
    answer = {**GOOD, "script": "", "title": "", "missing_input": "the log host"}
    assert ACTION_PROPOSAL.parse(json.dumps(answer), context={"needs_undo": True}).missing_input


@pytest.mark.parametrize("text", ["", "null", "[]", '"x"', '{"a": 1', "{} {}", 'Here: {"a": 1}', '{"a": 1, "a": 2}'])
def test_what_is_not_one_plain_object_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(ContractError) as caught:
        ACTION_PROPOSAL.parse(text)
    assert [e.field for e in caught.value.errors] == [""]


@pytest.mark.parametrize("script", ["exit 0", "true", "#!/bin/bash\n# nothing\nset -e\necho done\nexit 0\n", ":\n"])
def test_a_script_that_cannot_change_anything_is_no_action(script: str) -> None:
    assert "does nothing" in script_problem(script)


@pytest.mark.parametrize("script", ["echo x > /etc/motd", "true && reboot", "echo $(rm x)", "exit 0; rm x", "set x; y"])
def test_a_script_that_might_change_something_is_left_to_the_policy_gate(script: str) -> None:
    assert script_problem(script) == ""


def test_plain_words_are_sentences_that_say_things_once() -> None:
    good = "The rule still fails on this machine. The reason is that it wants a file system."
    assert PLAIN_WORDS.parse(json.dumps({"words": good})).words == good
    repeats = "The rule still fails on this machine. " + "The last one was a fix " * 6 + "."
    for bad in ("[1] [2] [3] [4] [5] [6] [7] [8] [9] [10].", "Too short.", repeats):
        with pytest.raises(ContractError):
            PLAIN_WORDS.parse(json.dumps({"words": bad.strip()}))
