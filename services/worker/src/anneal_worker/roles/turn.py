"""One self-healing model turn: generate, clean, validate, feed field-level errors back, at most N tries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from anneal_contracts.facts import CoreMode
from anneal_contracts.roles import MODEL_UNAVAILABLE, Answer, ContractError, FieldError
from anneal_contracts.work import Usage
from anneal_runtime.errors import AnnealError, BudgetExhausted

from anneal_worker.roles.door import Call, ModelDoor, ProfileInfo, Reply
from anneal_worker.roles.forms import Form
from anneal_worker.roles.prompts import CHARS_PER_TOKEN
from anneal_worker.roles.quirks import Cleaned, Problem

DEFAULT_TRIES = 3
# A rejected answer is shown back to its author, but no longer than this many characters.
_ECHO_CHARS = 4000
# Fewer tokens than these are no room for an answer.
_LEAST_ROOM = 200

_PROBLEM_WORDS = {
    Problem.EMPTY: "was empty: think less and give the JSON object",
    Problem.TRUNCATED: "was cut off before its end: be much shorter",
    Problem.RUNAWAY: "ran on without meaning until it was cut off: give compact JSON without padding",
    Problem.TOOL_CALL: "called a tool, and there are none: give the JSON object itself",
    Problem.REFUSED: "was refused",
}


@dataclass(frozen=True, kw_only=True)
class Turn(Generic[Answer]):
    """What a turn came to. answer is None: mode (a failure mode's name) and detail say why."""

    answer: Answer | None
    mode: str = ""
    detail: str = ""
    usage: Usage = field(default_factory=Usage)
    # One entry a call: canonical JSON of request and response.
    transcript: Sequence[bytes] = ()
    # As reported by the response.
    model: str = ""


class _Log:
    """What the calls of one turn add up to."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.transcript: list[bytes] = []
        self.model = ""

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens

    def add(self, reply: Reply) -> None:
        self.usage = Usage(
            calls=self.usage.calls + 1,
            prompt_tokens=self.usage.prompt_tokens + reply.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + reply.usage.completion_tokens,
        )
        self.transcript.append(reply.transcript)
        self.model = reply.model

    def ended(self, answer: Answer | None, mode: str = "", detail: str = "") -> Turn[Answer]:
        return Turn(
            answer=answer,
            mode=mode,
            detail=detail[:1000],
            usage=self.usage,
            transcript=tuple(self.transcript),
            model=self.model,
        )


async def take_turn(
    door: ModelDoor,
    call: Call,
    profile: ProfileInfo,
    form: Form[Answer],
    messages: Sequence[Mapping[str, str]],
    *,
    tries: int = DEFAULT_TRIES,
    tokens_left: int = 0,
    context: Mapping[str, Any] | None = None,
    teach: bool = True,
) -> Turn[Answer]:
    """Asks until an answer keeps its contract. Never raises for what a model or its server does: see Turn.mode.

    teach off: asks the same again instead of feeding errors back, for a model too small to learn from them.
    tokens_left: what the turn may still take, as far as it can be told beforehand; 0: no bound of its own.
    """
    log = _Log()
    asked = list(messages)
    room = profile.max_tokens_by_role.get(call.role.value, 1024)
    errors: Sequence[FieldError] = ()
    for _ in range(tries):
        if tokens_left:
            room = min(room, tokens_left - log.tokens - _prompt_tokens(asked))
            if room < _LEAST_ROOM:
                return log.ended(None, CoreMode.BUDGET_EXHAUSTED.value, f"{tokens_left} tokens are left for this item")
        try:
            reply = await door.complete(call, asked, form=form.fields, max_tokens=room)
        except AnnealError as e:
            mode = CoreMode.BUDGET_EXHAUSTED.value if isinstance(e, BudgetExhausted) else MODEL_UNAVAILABLE
            return log.ended(None, mode, e.message)
        log.add(reply)
        cleaned = Cleaned(text="")
        try:
            cleaned = form.read(reply.message, reply.finish_reason)
            if cleaned.problem is not Problem.NONE:
                raise ContractError([FieldError(field="", problem=_PROBLEM_WORDS[cleaned.problem])])
            return log.ended(form.contract.parse(cleaned.text, context=context))
        except ContractError as e:
            errors = e.errors
        if cleaned.problem is Problem.TRUNCATED:
            room = min(2 * room, max(room, profile.context_tokens // 2))
        if teach:
            asked = _with_feedback(messages, cleaned.text, form.contract.feedback(errors), cleaned.problem)
    detail = f"After {tries} tries: " + "; ".join(f"{e.field or 'answer'}: {e.problem}" for e in errors)
    return log.ended(None, CoreMode.CONTRACT_VIOLATION.value, detail)


def _prompt_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(len(m["content"].encode()) for m in messages) // CHARS_PER_TOKEN


def _with_feedback(
    messages: Sequence[Mapping[str, str]], text: str, feedback: str, problem: Problem
) -> list[Mapping[str, str]]:
    """The first prompt and the last broken answer: earlier ones would only fill the context."""
    # Half an answer shown back invites the model to go on with it.
    if problem is not Problem.NONE or not text:
        first, last = list(messages[:-1]), messages[-1]
        return [*first, {"role": last["role"], "content": f"{last['content']}\n\n{feedback}"}]
    echo = text if len(text) <= _ECHO_CHARS else text[:_ECHO_CHARS] + " [cut]"
    return [*messages, {"role": "assistant", "content": echo}, {"role": "user", "content": feedback}]
