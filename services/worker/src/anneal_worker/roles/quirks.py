"""What models do to an answer besides answering, in one place.

Reasoning may come in its own field or between markers in the text; tool-call syntax may leak; an answer may be fenced,
cut off, or drown in white space. Nothing here repairs an answer: a text is either taken whole or asked for again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Problem(StrEnum):
    """Why a text cannot be an answer, whatever its contract."""

    NONE = ""
    EMPTY = "empty"  # nothing but reasoning, or nothing at all
    TRUNCATED = "truncated"  # cut off at max_tokens: ask again with more room
    RUNAWAY = "runaway"  # white space or repetition until max_tokens: more room does not help
    TOOL_CALL = "tool_call"  # tool-call syntax instead of, or beside, the answer
    REFUSED = "refused"  # the server's content filter or the model's refusal field


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """text is the answer alone; reasoning is kept for the transcript and never goes into an action or a next prompt."""

    text: str
    reasoning: str = ""
    problem: Problem = Problem.NONE


# Reasoning between markers: (opening, closing). Gemma 4 opens a channel with one bar and closes it with the other.
_REASONING = (
    (r"<think(?:ing)?>", r"</think(?:ing)?>"),
    (r"<\|channel>\s*thought", r"<channel\|>"),
    (
        r"<\|channel\|>\s*(?:analysis|commentary|thought)[^<]*<\|message\|>",
        r"<\|end\|>|(?=<\|start\|>)|(?=<\|channel\|>)",
    ),
)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final[^<]*<\|message\|>(.*?)(?:<\|return\|>|<\|end\|>|\Z)", re.DOTALL)
_TOOL_CALL = re.compile(r"<\|?tool_calls?\|?>|<tool_call\|>|</tool_call>|\[TOOL_CALLS\]|<function=", re.IGNORECASE)
# Ends of turn that a server failed to cut away; they carry no meaning.
_TURN_ENDS = re.compile(r"(?:<end_of_turn>|<turn\|>|<\|im_end\|>|<\|return\|>|<\|end\|>|<\|eot_id\|>|<eos>|</s>)\s*\Z")
_TURN_STARTS = re.compile(
    r"\A\s*(?:<start_of_turn>model|<\|turn>model|<\|start\|>assistant|<\|im_start\|>assistant)\s*"
)
_FENCE = re.compile(r"\A```[A-Za-z]*[ \t]*\n(.*)\n?```\Z", re.DOTALL)
_WHITESPACE_RUN = re.compile(r"\s{120,}")
# One short piece of text over and over at the end: a small model that has lost the thread.
_REPETITION = re.compile(r"(.{1,40}?)\1{11,}.{0,40}\Z", re.DOTALL)


def clean(message: Mapping[str, Any], finish_reason: str) -> Cleaned:
    """Separates the answer of a chat message from what surrounds it. Never raises: a bad message has a problem."""
    content = _text(message.get("content"))
    reasoning = [_text(message.get("reasoning_content") or message.get("reasoning"))]
    if message.get("refusal") or finish_reason == "content_filter":
        return Cleaned(text="", reasoning=reasoning[0], problem=Problem.REFUSED)
    # An answer that is JSON as it stands is not searched for markers: they could only be inside its strings.
    text = content.strip()
    if not _is_json(text):
        text, found = _without_reasoning(text)
        reasoning.append(found)
        text = _unfenced(_TURN_ENDS.sub("", _TURN_STARTS.sub("", text)).strip())
    joined = "\n".join(part for part in reasoning if part)
    return Cleaned(text=text, reasoning=joined, problem=_problem(message, content, text, finish_reason))


def _problem(message: Mapping[str, Any], content: str, text: str, finish_reason: str) -> Problem:
    if _is_json(text):
        return Problem.NONE
    if message.get("tool_calls") or _TOOL_CALL.search(content):
        return Problem.TOOL_CALL
    if finish_reason == "length":
        lost = _WHITESPACE_RUN.search(content) or _REPETITION.search(content[-2000:])
        return Problem.RUNAWAY if lost else Problem.TRUNCATED
    return Problem.NONE if text else Problem.EMPTY


def _without_reasoning(text: str) -> tuple[str, str]:
    final = _FINAL_CHANNEL.search(text)
    if final:
        return final.group(1), text[: final.start()]
    found = []
    for opening, closing in _REASONING:
        # An opening without its end: all that follows is reasoning, however much it looks like an answer.
        pattern = re.compile(f"(?:{opening})(.*?)(?:{closing}|\\Z)", re.DOTALL | re.IGNORECASE)
        found += pattern.findall(text)
        text = pattern.sub("", text)
        # A closing without its opening (the template opened it in the prompt): all before it is reasoning.
        if not closing.startswith("<\\|end"):
            head, mark, tail = _rpartition(closing, text)
            if mark:
                found.append(head)
                text = tail
    return text, "\n".join(found)


def _rpartition(pattern: str, text: str) -> tuple[str, bool, str]:
    found = list(re.finditer(pattern, text, re.IGNORECASE))
    last = found[-1] if found else None
    return (text[: last.start()], True, text[last.end() :]) if last else ("", False, text)


def _unfenced(text: str) -> str:
    """The inside of a text that is one fenced block and nothing else."""
    found = _FENCE.match(text)
    return found.group(1).strip() if found and "```" not in found.group(1) else text


def _is_json(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
