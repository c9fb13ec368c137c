"""The quirks of models: what is the answer, what is not, and that nothing is ever repaired."""

import json
import time

import pytest
from anneal_worker.roles.quirks import Problem, clean

ANSWER = json.dumps({"script": "systemctl restart rsyslog", "title": "Restart"})
DRAFT = json.dumps({"script": "rm -rf /", "title": "Draft"})


def _clean(content: object, finish: str = "stop", **message: object) -> tuple[str, Problem]:
    cleaned = clean({"role": "assistant", "content": content, **message}, finish)
    return cleaned.text, cleaned.problem


@pytest.mark.parametrize(
    "content",
    [
        ANSWER,
        f"  \n{ANSWER}\n\n",
        f"```json\n{ANSWER}\n```",
        f"```\n{ANSWER}\n```",
        f"<think>I might do {DRAFT}.</think>\n{ANSWER}",
        f"I might do {DRAFT}.</think>{ANSWER}",
        f"<|channel>thought\nI might do {DRAFT}.<channel|>{ANSWER}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
        f"{ANSWER}<end_of_turn>",
        f"<start_of_turn>model\n{ANSWER}<end_of_turn>\n",
        [{"type": "text", "text": ANSWER}],
    ],
)
def test_the_answer_is_found_in_what_models_put_around_it(content: object) -> None:
    assert _clean(content) == (ANSWER, Problem.NONE)


@pytest.mark.parametrize(
    "content",
    [
        f"<think>I might do {DRAFT}",
        f"<|channel>thought\nI might do {DRAFT}",
        f"<|channel|>analysis<|message|>{DRAFT}",
        f"<|channel|>commentary to=x<|message|>{DRAFT}<|end|>",
    ],
)
def test_reasoning_without_an_end_is_never_taken_for_an_answer(content: str) -> None:
    text, problem = _clean(content)
    assert DRAFT not in text
    assert problem is not Problem.NONE


def test_reasoning_in_its_own_field_stays_out_of_the_answer() -> None:
    for name in ("reasoning_content", "reasoning"):
        cleaned = clean({"content": ANSWER, name: f"perhaps {DRAFT}"}, "stop")
        assert cleaned.text == ANSWER
        assert DRAFT in cleaned.reasoning
        assert clean({"content": None, name: DRAFT}, "stop").problem is Problem.EMPTY


@pytest.mark.parametrize(
    "content",
    [
        '<|tool_call>call:run{script:<|"|>reboot<|"|>}<tool_call|>',
        f"<tool_call>{DRAFT}</tool_call>",
        f"<|tool_call|>call:run{DRAFT}",
        f'[TOOL_CALLS][{{"name": "run"}}] {DRAFT}',
    ],
)
def test_leaked_tool_call_text_is_a_problem_and_no_answer(content: str) -> None:
    assert _clean(content)[1] is Problem.TOOL_CALL


def test_a_real_tool_call_is_no_answer_either() -> None:
    assert _clean(None, tool_calls=[{"function": {"name": "run"}}])[1] is Problem.TOOL_CALL


def test_a_cut_off_answer_is_truncated_and_is_not_completed() -> None:
    text, problem = _clean(ANSWER[:-10], "length")
    assert problem is Problem.TRUNCATED
    assert text == ANSWER[:-10].strip()


def test_an_answer_that_ended_before_the_limit_cut_its_padding_is_whole() -> None:
    assert _clean(ANSWER + "\n" * 500, "length") == (ANSWER, Problem.NONE)


def test_white_space_or_repetition_until_the_limit_is_told_apart_from_a_long_answer() -> None:
    assert _clean('{"script":' + " " * 2000, "length")[1] is Problem.RUNAWAY
    assert _clean('{"words": "' + "-0.000" * 200, "length")[1] is Problem.RUNAWAY


def test_a_refusal_is_a_problem_of_its_own() -> None:
    assert _clean("", refusal="I cannot")[1] is Problem.REFUSED
    assert _clean(ANSWER, "content_filter")[1] is Problem.REFUSED


def test_markers_inside_a_valid_answer_are_left_for_the_contract_to_judge() -> None:
    answer = json.dumps({"script": "echo '<think>' > x", "title": "t"})
    assert _clean(answer) == (answer, Problem.NONE)


def test_prose_around_an_answer_is_not_cut_away() -> None:
    text, problem = _clean(f"Here it is: {ANSWER}")
    assert text.startswith("Here it is")
    assert problem is Problem.NONE


def test_an_endless_answer_is_cleaned_in_no_time() -> None:
    begun = time.monotonic()
    for content in ("a" * 200_000, "<think>" * 20_000, "ab" * 100_000, "{" * 100_000, "``` " * 50_000):
        clean({"content": content}, "length")
    assert time.monotonic() - begun < 1.0
