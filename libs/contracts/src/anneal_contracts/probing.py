"""The Worker's answer where it may ask for facts first: either questions or one action, never both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, Union

from pydantic import BaseModel, Field, ValidationInfo, create_model, model_validator

from anneal_contracts.facts import Frozen, ProbeCall
from anneal_contracts.roles import ACTION_PROPOSAL, ActionProposal, RoleContract, closed_schema


@dataclass(frozen=True, kw_only=True)
class Question:
    """A tool that may be asked. arguments is its closed model; description is written for the model."""

    name: str
    description: str
    arguments: type[BaseModel]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""
        return closed_schema(self.arguments)


class WorkerAnswer(Frozen):
    """Questions about the machine, or one action.

    Validation context: that of ActionProposal, and asked (questions that have their answer, as `key` gives them).
    """

    probes: tuple[Any, ...] = ()
    action: ActionProposal | None = None

    @model_validator(mode="after")
    def _is_one_or_the_other(self, info: ValidationInfo) -> Self:
        if bool(self.probes) == (self.action is not None):
            raise ValueError("action: give either probes or one action: null beside probes, no probes beside an action")
        asked = (info.context or {}).get("asked", ())
        keys = [key(call) for call in self.calls()]
        if again := [k for k in keys if k in asked]:
            raise ValueError(f"probes: {again[0]} was asked before; its answer stands above")
        if len(set(keys)) != len(keys):
            raise ValueError("probes: a question is given twice")
        return self

    def calls(self) -> tuple[ProbeCall, ...]:
        """The questions as they are carried out."""
        return tuple(ProbeCall(tool=p.tool, arguments=p.model_dump(exclude={"tool"})) for p in self.probes)


def key(call: ProbeCall) -> str:
    """A question in one line: equal questions have equal keys."""
    words = ", ".join(f"{name}={value}" for name, value in sorted(call.arguments.items()))
    return f"{call.tool}({words})"


class WorkerContract(RoleContract[WorkerAnswer]):
    """The contract of a turn that may ask these questions, at most so many at once."""

    def __init__(self, questions: Sequence[Question], most: int) -> None:
        forms = [_form(q) for q in questions]
        one: Any = Annotated[Union[tuple(forms)], Field(discriminator="tool")] if len(forms) > 1 else forms[0]  # noqa: UP007
        model: type[WorkerAnswer] = create_model(
            "WorkerAnswer",
            __base__=WorkerAnswer,
            probes=(Annotated[tuple[one, ...], Field(max_length=most)], ...),
            action=(ActionProposal | None, ...),
        )
        super().__init__(model)
        self.questions = tuple(questions)
        self.most = most

    def render(self) -> str:
        """The contract for a prompt, with the questions and their arguments."""
        lines = [
            "Answer with one JSON object (WorkerAnswer) and nothing else. It has two fields, both required:",
            f"- probes: a list of at most {self.most} questions about the machine, each an object with the field "
            "`tool` and that tool's arguments; an empty list when you act.",
            "- action: null when you ask; else one object (ActionProposal).",
            "Ask for what you need to know instead of guessing. The tools only read:",
        ]
        lines += [f"- {q.name}({_arguments(q)}): {q.description}" for q in self.questions]
        action = ACTION_PROPOSAL.render().split("\n", 1)[1]
        return "\n".join([*lines, "The fields of an ActionProposal, all of them required:", action])


def _form(question: Question) -> type[BaseModel]:
    """The arguments of a tool with its name among them."""
    name: Any = Literal[question.name]
    return create_model(question.name, __base__=question.arguments, tool=(name, ...))


def _arguments(question: Question) -> str:
    fields = question.parameters["properties"].items()
    return "; ".join(f"{name}: {spec.get('description', 'text')}" for name, spec in fields)
