"""What the model roles must answer: one Pydantic model a role, and RoleContract, which gives all that is needed of it.

Every answer is untrusted input. A contract says what a well-formed answer is and nothing about whether it is right:
that is the policy gate's and the evaluator's word.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from anneal_contracts.facts import Frozen


class ModelRole(StrEnum):
    """Who speaks: each has its own prompt, contract, model and sampling."""

    ARCHITECT = "architect"  # decides on a strategy
    WORKER = "worker"  # writes one action
    REFLECTOR = "reflector"  # says what was learnt


class May(StrEnum):
    """What a model profile may do."""

    AUTHOR = "author"  # write scripts that run after the policy gate
    CHOOSE = "choose"  # choose among given fixes
    NONE = "none"  # words for people only


# Proposed.mode where no answer was had at all; the run goes on with the rungs that need no model.
MODEL_UNAVAILABLE = "model_unavailable"

# Markers of chat templates: they have no place inside an answer's fields.
_MARKERS = re.compile(r"<\|[a-z_]{1,24}\|?>|<[a-z_]{1,24}\|>|</?think>|<(?:start|end)_of_turn>", re.IGNORECASE)
# Lines that cannot change anything; a script of nothing else is no action.
_IDLE_LINE = re.compile(
    r"^\s*(?:#.*|set\s+[-+][A-Za-z]+(?:\s+[a-z]+)*|exit(?:\s+\d+)?|true|false|:|echo\b[^|><;&`$]*|return(?:\s+\d+)?)?\s*;?\s*$"
)


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One thing that is wrong with an answer. field is a dotted path; empty: the answer as a whole."""

    field: str
    problem: str


class ContractError(Exception):
    """An answer broke its contract; errors say how, field by field."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{e.field or 'answer'}: {e.problem}" for e in errors))
        self.errors = tuple(errors)


class ActionProposal(Frozen):
    """One action: a bash script that makes one item pass, or the reason why none can be written.

    Validation context: needs_undo (bool), tried (scripts that failed on this item, stripped), banned (pieces of failed
    scripts that a certain diagnosis blamed).
    """

    analysis: Annotated[str, Field(min_length=1, max_length=4000)] = Field(
        description="Why the item fails on this machine now, and why the script below changes that."
    )
    missing_input: Annotated[str, Field(max_length=500)] = Field(
        description="What only a person can supply and without which no script can work; empty when you can act."
    )
    title: Annotated[str, Field(max_length=120)] = Field(description="The action in one short line.")
    script: Annotated[str, Field(max_length=20000)] = Field(
        description="The complete bash script, run once as root. Empty only when missing_input is given."
    )
    undo: Annotated[str, Field(max_length=20000)] = Field(
        description="A bash script that takes the action back exactly; empty where you cannot write one."
    )
    expected_effect: Annotated[str, Field(max_length=1000)] = Field(
        description="What the check will find after the script has run."
    )
    risk: Literal["low", "medium", "high"] = Field(description="How likely the script is to disturb the machine.")
    risks_reach: bool = Field(
        description="True when a mistake could cut remote access: sshd, sudo, PAM, accounts, network, firewall."
    )
    needs_reboot: bool = Field(description="True when the change only holds after a reboot.")

    @model_validator(mode="after")
    def _is_one_action(self, info: ValidationInfo) -> "ActionProposal":
        if self.missing_input.strip():
            if self.script.strip():
                raise ValueError("script: give either a script or missing_input, not both")
            return self
        problem = script_problem(self.script)
        if problem:
            raise ValueError(f"script: {problem}")
        if not self.title.strip():
            raise ValueError("title: must not be empty")
        context = info.context or {}
        if self.script.strip() in context.get("tried", ()):
            raise ValueError("script: was tried before on this item and failed; take another approach")
        if blamed := [text for text in context.get("banned", ()) if text in self.script]:
            raise ValueError(f"script: holds {blamed[0]!r}, which made an earlier attempt fail; take another approach")
        if context.get("needs_undo") and not self.undo.strip():
            raise ValueError("undo: this target has no snapshots, so a script that takes the action back is required")
        if self.undo.strip() and (problem := script_problem(self.undo)):
            raise ValueError(f"undo: {problem}")
        return self


def script_problem(script: str) -> str:
    """What keeps a text from being one bash script, in words; empty: nothing. Says nothing about its safety."""
    if not script.strip():
        return "must not be empty"
    if "```" in script:
        return "must be the bare script, without Markdown fences"
    if _MARKERS.search(script):
        return "holds markers of a chat template; give the bare script"
    if any(ord(c) < 32 and c not in "\n\t" for c in script):
        return "holds control characters"
    if all(_IDLE_LINE.match(line) for line in script.splitlines()):
        return "does nothing: only comments, settings, messages or an exit"
    return ""


class Certainty(StrEnum):
    """How sure a diagnosis is. Words, because a small model's numbers mean nothing."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def value_between_0_and_1(self) -> float:
        """The number that stop rules compare with."""
        return {"low": 0.3, "medium": 0.6, "high": 0.9}[self.value]


BannedText = Annotated[str, Field(min_length=8, max_length=200)]


class Reflection(Frozen):
    """What a failure taught. Validation context: script (the one that failed)."""

    words: Annotated[str, Field(min_length=20, max_length=1200)] = Field(
        description="For the operator, in plain words: what was tried, what happened, what a person should do next."
    )
    mechanism: Annotated[str, Field(min_length=1, max_length=600)] = Field(
        description="The cause, as a mechanism: what on this machine makes the fix fail."
    )
    lesson: Annotated[str, Field(min_length=1, max_length=300)] = Field(
        description="One sentence that would have helped before the first attempt."
    )
    bans: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=5)] = Field(
        description="Approaches that must not be tried again here, each in one line; an empty list when none."
    )
    banned_text: Annotated[tuple[BannedText, ...], Field(max_length=3)] = Field(
        description="Pieces of the failed script, copied exactly, that no further script here may hold; an empty list "
        "unless the evidence leaves no doubt that they are the cause."
    )
    certainty: Certainty = Field(description="How well the evidence supports the mechanism.")

    @field_validator("banned_text")
    @classmethod
    def _is_of_the_script(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        script = (info.context or {}).get("script")
        if script is not None and (strange := [text for text in value if text not in script]):
            raise ValueError(f"{strange[0]!r} is no piece of the script that failed; copy it exactly, or leave it out")
        return value


# Two or three sentences of plain words: a decoder that knows patterns keeps a very small model on its feet with it
# (SmolLM2 135M: 8 of 8 samples were readable with it, 3 to 5 without).
_PLAIN_SENTENCES = r"^The [A-Za-z0-9 ,'()]{25,150}\.( [A-Z][A-Za-z0-9 ,'()]{15,150}\.){1,2}$"


class PlainWords(Frozen):
    """All that is asked of a model that may not judge: a summary for people."""

    words: str = Field(pattern=_PLAIN_SENTENCES, description="Two or three plain sentences for the operator.")

    @field_validator("words")
    @classmethod
    def _says_things_once(cls, value: str) -> str:
        words = re.findall(r"[a-z0-9]+", value.lower())
        runs = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
        if runs and max(runs.values()) > 2:
            raise ValueError("repeats itself; say each thing once")
        return value


Answer = TypeVar("Answer", bound=BaseModel)


class RoleContract(Generic[Answer]):
    """A contract as the four things a model turn needs: schema, rendering, validation, feedback."""

    def __init__(self, model: type[Answer]) -> None:
        self.model = model
        self.name = model.__name__
        self.schema: dict[str, Any] = closed_schema(model)

    def render(self) -> str:
        """The contract for a prompt: servers that constrain decoding do not show the schema's descriptions."""
        lines = [f"Answer with one JSON object ({self.name}) and nothing else. Its fields, all of them required:"]
        for name, spec in self.schema["properties"].items():
            lines.append(f"- {name} ({_kind(spec)}): {spec.get('description', '')}")
        return "\n".join(lines)

    def parse(self, text: str, *, context: Mapping[str, Any] | None = None) -> Answer:
        """Validates an answer. Raises ContractError; never repairs, never guesses."""
        data = one_object(text)
        try:
            return self.model.model_validate(data, context=dict(context or {}))
        except ValidationError as e:
            raise ContractError([_field_error(err["loc"], err["msg"]) for err in e.errors()]) from e

    def feedback(self, errors: Sequence[FieldError]) -> str:
        """What the model is told after a broken answer, field by field."""
        lines = [f"Your answer breaks the contract {self.name}. Correct exactly this and answer again in full:"]
        lines += [f"- {e.field or 'the answer as a whole'}: {e.problem}" for e in errors]
        return "\n".join(lines)


def one_object(text: str) -> dict[str, Any]:
    """A text that is one JSON object and nothing else, no field in it given twice. Raises ContractError."""
    try:
        data = json.loads(text, object_pairs_hook=_no_duplicates)
    except ValueError as e:
        raise ContractError([FieldError(field="", problem=f"is not one JSON object: {str(e)[:200]}")]) from e
    if not isinstance(data, dict):
        raise ContractError([FieldError(field="", problem="must be a JSON object")])
    return data


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a field is given twice")
    return seen


def _field_error(loc: Sequence[int | str], message: str) -> FieldError:
    message = message.removeprefix("Value error, ")
    path = ".".join(str(part) for part in loc)
    # A model validator names its field in front of the message, since Pydantic only knows the whole.
    if not path and (found := re.match(r"^([a-z_]+): (.*)$", message, re.DOTALL)):
        path, message = found.groups()
    return FieldError(field=path, problem=message)


def _kind(spec: Mapping[str, Any]) -> str:
    if "enum" in spec:
        return "one of " + ", ".join(json.dumps(v) for v in spec["enum"])
    if spec.get("type") == "array":
        return f"list of at most {spec.get('maxItems', 'any number of')} texts"
    if spec.get("type") == "string":
        return f"text, at most {spec['maxLength']} characters" if "maxLength" in spec else "text"
    return {"boolean": "true or false", "integer": "whole number", "number": "number"}.get(
        str(spec.get("type")), "value"
    )


def closed_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's schema with references inlined, titles dropped, every field required: what decoders agree on."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(n) for n in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = definitions[node["$ref"].rsplit("/", 1)[-1]]
            return walk({**target, **{k: v for k, v in node.items() if k != "$ref"}})
        # Which form is meant is told by a constant in it; decoders know anyOf, and not all of them oneOf.
        node = {"anyOf" if k == "oneOf" else k: v for k, v in node.items() if k != "discriminator"}
        return {k: walk(v) for k, v in node.items() if k not in ("title", "default") or isinstance(v, dict)}

    closed: dict[str, Any] = walk(schema)
    closed["additionalProperties"] = False
    closed["required"] = list(closed["properties"])
    closed.pop("description", None)
    return closed


ACTION_PROPOSAL = RoleContract(ActionProposal)
REFLECTION = RoleContract(Reflection)
PLAIN_WORDS = RoleContract(PlainWords)
