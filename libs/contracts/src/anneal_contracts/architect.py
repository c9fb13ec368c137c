"""What the Architect must answer: which item next, the plan for an item, and a second look on evidence."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, create_model, model_validator

from anneal_contracts.facts import Frozen
from anneal_contracts.roles import RoleContract

_Line = Annotated[str, Field(min_length=1, max_length=300)]
_Text = Annotated[str, Field(max_length=1500)]


class ItemPlan(Frozen):
    """The plan for one item, before a script is written."""

    diagnosis: Annotated[str, Field(min_length=1, max_length=1500)] = Field(
        description="Why the item fails on this machine, as far as the facts tell."
    )
    approach: Annotated[str, Field(max_length=600)] = Field(
        description="The way to mend it, in one or two sentences. Empty only when missing_input is given."
    )
    steps: Annotated[tuple[_Line, ...], Field(max_length=6)] = Field(
        description="What the script has to do, in order, one line each."
    )
    look_at: Annotated[tuple[_Line, ...], Field(max_length=5)] = Field(
        description="What is worth looking at on the machine before the script is written; an empty list when nothing."
    )
    missing_input: Annotated[str, Field(max_length=500)] = Field(
        description="What only a person can supply and without which nothing can work; empty when there is a way."
    )

    @model_validator(mode="after")
    def _is_a_way_or_none(self) -> Self:
        if bool(self.approach.strip()) == bool(self.missing_input.strip()):
            raise ValueError("approach: give either an approach or missing_input, and not both")
        return self


class Verdict(StrEnum):
    """What follows from a second look."""

    CONTINUE = "CONTINUE"  # the plan is right: write the next script along it
    PIVOT = "PIVOT"  # the plan is wrong: here is another
    ESCALATE = "ESCALATE"  # a person has to look at it


class ArchitectDecision(Frozen):
    """A second look at an item, on evidence."""

    decision: Verdict = Field(
        description="CONTINUE: the approach is right, and the next script will differ in its details. PIVOT: the "
        "approach is wrong, and there is another. ESCALATE: no script can help, or something is missing."
    )
    reason: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="Which evidence decides it, in a few sentences."
    )
    diagnosis: _Text = Field(description="For PIVOT: why the item fails, as it looks now. Empty otherwise.")
    approach: Annotated[str, Field(max_length=600)] = Field(
        description="For PIVOT: the other way to mend it. Empty otherwise."
    )
    steps: Annotated[tuple[_Line, ...], Field(max_length=6)] = Field(
        description="For PIVOT: what the script has to do, one line each. An empty list otherwise."
    )
    look_at: Annotated[tuple[_Line, ...], Field(max_length=5)] = Field(
        description="What is worth looking at on the machine first; an empty list when nothing."
    )
    missing_input: Annotated[str, Field(max_length=500)] = Field(
        description="For ESCALATE: what a person has to supply; empty when nothing is missing."
    )

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.decision is Verdict.PIVOT) != bool(self.approach.strip()):
            raise ValueError("approach: belongs to PIVOT, and to nothing else")
        if self.missing_input.strip() and self.decision is not Verdict.ESCALATE:
            raise ValueError("missing_input: belongs to ESCALATE alone")
        return self


class ItemChoice(Frozen):
    """Which item comes next."""

    item_id: str
    reason: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        description="Why this one first, in one sentence."
    )


ITEM_PLAN = RoleContract(ItemPlan)
ARCHITECT_DECISION = RoleContract(ArchitectDecision)


def item_choice(ready: Sequence[str]) -> RoleContract[ItemChoice]:
    """The contract of a choice among these items: any other id breaks it."""
    told = Field(description="The id of the item to work on next, exactly as it is given.")
    one: Any = Literal[tuple(ready)]
    return RoleContract(create_model("ItemChoice", __base__=ItemChoice, item_id=(one, told)))
