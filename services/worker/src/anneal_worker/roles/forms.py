"""How an answer is asked for: as JSON held to the contract's schema, or as a call of functions, where a model has them.

A call of functions is only another way to send the same answer: it is written as the contract's JSON and validated so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from anneal_contracts.probing import WorkerAnswer, WorkerContract
from anneal_contracts.roles import ACTION_PROPOSAL, Answer, ContractError, FieldError, RoleContract, one_object

from anneal_worker.roles.quirks import Cleaned, Problem, clean

# The function by which a model hands its action in.
ACT = "propose_action"


@dataclass(frozen=True, kw_only=True)
class Form(Generic[Answer]):
    """The plain form: one JSON object."""

    contract: RoleContract[Answer]

    @property
    def fields(self) -> Mapping[str, Any]:
        """What a request says beside its messages."""
        schema = {"name": self.contract.name, "schema": self.contract.schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def render(self) -> str:
        """What the prompt says of the answer."""
        return self.contract.render()

    def read(self, message: Mapping[str, Any], finish_reason: str) -> Cleaned:
        """The answer of a message as the contract's JSON. Raises ContractError."""
        return clean(message, finish_reason)


@dataclass(frozen=True, kw_only=True)
class FunctionForm(Form[WorkerAnswer]):
    """A Worker with probes whose model calls functions: one function a question, and one for the action."""

    worker: WorkerContract

    @property
    def fields(self) -> Mapping[str, Any]:
        functions = [_function(q.name, q.description, q.parameters) for q in self.worker.questions]
        act = _function(ACT, "Hands in the one action of this turn.", ACTION_PROPOSAL.schema)
        # Not `required`: some servers then answer with no call at all (vLLM after a rewrite of its parser).
        return {"tools": [*functions, act], "tool_choice": "auto"}

    def render(self) -> str:
        fields = ACTION_PROPOSAL.render().split("\n", 1)[1]
        return (
            f"Answer by calling functions and nothing else: at most {self.worker.most} questions about the machine, "
            f"which only read, or {ACT} once. Never both. Ask for what you need to know instead of guessing.\n"
            f"The fields of {ACT}, all of them required:\n{fields}"
        )

    def read(self, message: Mapping[str, Any], finish_reason: str) -> Cleaned:
        cleaned = clean({**message, "tool_calls": None}, finish_reason)
        calls = message.get("tool_calls")
        if calls:
            return Cleaned(text=_as_answer(calls), reasoning=cleaned.reasoning)
        if cleaned.problem is Problem.NONE and (bare := _bare_action(cleaned.text)):
            return Cleaned(text=bare, reasoning=cleaned.reasoning)
        return cleaned


def worker_form(contract: WorkerContract, *, functions: bool) -> Form[WorkerAnswer]:
    """How a Worker with probes is asked, by what its model has."""
    return FunctionForm(contract=contract, worker=contract) if functions else Form(contract=contract)


def _function(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": dict(parameters)},
    }


def _as_answer(calls: Sequence[Any]) -> str:
    """The JSON of a Worker's answer that these calls mean. Raises ContractError for two actions and the like."""
    told = [_call(call) for call in calls]
    acts = [arguments for name, arguments in told if name == ACT]
    if acts and len(told) > 1:
        raise ContractError([FieldError(field="", problem=f"has {len(told)} calls, and {ACT} goes alone and once")])
    if acts:
        return f'{{"probes": [], "action": {acts[0]}}}'
    probes = [{"tool": name, **one_object(arguments or "{}")} for name, arguments in told]
    return json.dumps({"probes": probes, "action": None})


def _call(call: Any) -> tuple[str, str]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ContractError([FieldError(field="", problem="has a call without a name")])
    arguments = function.get("arguments")
    return function["name"], arguments if isinstance(arguments, str) else json.dumps(arguments or {})


def _bare_action(text: str) -> str:
    """An action that was written out instead of handed in; empty where the text is something else."""
    try:
        data = one_object(text)
    except ContractError:
        return ""
    return f'{{"probes": [], "action": {text}}}' if "script" in data and "action" not in data else ""
