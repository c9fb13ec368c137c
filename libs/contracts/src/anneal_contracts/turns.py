"""Model turns: what each role is told, and what comes back of it.

A turn is one command: it asks the model until an answer keeps its contract, at most so many times, and ends in one
result. What a model says is never evidence; the engine decides what follows from a result.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from anneal_contracts.base import Candidate, CommandBase, PastAttempt, ResultBase, Usage
from anneal_contracts.facts import Frozen, ItemDetail, ProbeCall, ProbeState

# --- what a turn is told ---------------------------------------------------------------------------------------------


class Fact(Frozen):
    """A question about the target and what came of it; the text is in the blob, bounded and redacted, and tainted."""

    call: ProbeCall
    state: ProbeState
    blob: str = ""
    detail: str = ""


class Strategy(Frozen):
    """The Architect's plan for one item, in its own words."""

    diagnosis: str
    approach: str
    steps: tuple[str, ...] = ()
    # Facts that are worth asking for first.
    look_at: tuple[str, ...] = ()


class Lesson(Frozen):
    """What the Reflector made of one failed attempt."""

    attempt: int
    mechanism: str
    lesson: str
    # Approaches that must not be tried again, in words.
    bans: tuple[str, ...] = ()
    # Pieces of the failed script that no further script at this item may hold; none unless the diagnosis is certain.
    banned_text: tuple[str, ...] = ()
    certainty: Literal["low", "medium", "high"]


class Recollection(Frozen):
    """What memory gave for an item, and what it is called there: a tip, a ban, or an earlier run's lesson."""

    id: str
    kind: Literal["tip", "ban", "lesson"]
    text: str
    run_id: str = ""
    utility: float = 0.0


class Turn(CommandBase):
    """What every turn on one item is told. What it may still cost is counted by the engine."""

    item: ItemDetail
    past: tuple[PastAttempt, ...] = ()
    model_profile: str = ""
    facts: tuple[Fact, ...] = ()
    lessons: tuple[Lesson, ...] = ()
    recalled: tuple[Recollection, ...] = ()
    strategy: Strategy | None = None
    # Calls and tokens that are left; tokens 0: the item has no bound of its own.
    calls_left: int = 3
    tokens_left: int = 0


class Propose(Turn):
    """The Worker role writes one script under its contract, or asks for facts first."""

    kind: Literal["propose"] = "propose"
    attempt: int
    can_snapshot: bool
    fingerprint: str = ""
    # Questions that it may ask: in this answer, and of this item in all.
    probes_now: int = 0
    probes_left: int = 0


class Learn(Turn):
    """The Reflector looks at one failed attempt of the model's."""

    kind: Literal["learn"] = "learn"
    attempt: int


class PlanItem(Turn):
    """The Architect makes the plan for an item before the first attempt of the model's."""

    kind: Literal["plan_item"] = "plan_item"
    attempt: int
    fingerprint: str = ""


class ReviewItem(Turn):
    """The Architect looks again, on evidence: goes on, takes another way, or gives the item to a person."""

    kind: Literal["review_item"] = "review_item"
    attempt: int
    why: str
    tries_left: int
    fingerprint: str = ""


class ChooseItem(CommandBase):
    """The Architect picks the next among items that are ready."""

    kind: Literal["choose_item"] = "choose_item"
    items: Annotated[tuple[ItemDetail, ...], Field(min_length=2)]
    # What came of the items before, newest last, in a few words each.
    story: tuple[str, ...] = ()
    model_profile: str = ""
    calls_left: int = 3


class Probe(CommandBase):
    """Answers one question about the target. It changes nothing there."""

    kind: Literal["probe"] = "probe"
    item_id: str
    call: ProbeCall


class Reflect(CommandBase):
    """A model turn on what failed: plain words for people. Never evidence."""

    kind: Literal["reflect"] = "reflect"
    item: ItemDetail
    past: tuple[PastAttempt, ...]
    reason: str
    model_profile: str = ""


# --- what comes of it ------------------------------------------------------------------------------------------------


class TurnResult(ResultBase):
    """mode and detail say why a turn had no acceptable answer; both are empty where it had one."""

    mode: str = ""
    detail: str = ""
    usage: Usage = Usage()
    # Blobs of prompt and response for the provenance of the answer.
    transcript_blobs: tuple[str, ...] = ()
    model: str = ""


class Proposed(TurnResult):
    """One action, or questions, or neither."""

    kind: Literal["proposed"] = "proposed"
    candidate: Candidate | None = None
    probes: tuple[ProbeCall, ...] = ()
    # Likeness to the nearest script that was tried on this item before, 0 to 1.
    similarity: float = 0.0

    @model_validator(mode="after")
    def _is_one_action_at_the_most(self) -> Self:
        if self.candidate is not None and self.probes:
            raise ValueError("a turn is either an action or questions")
        return self


class Learnt(TurnResult):
    kind: Literal["learnt"] = "learnt"
    lesson: Lesson | None = None
    # Likeness to the nearest earlier lesson on this item, 0 to 1.
    similarity: float = 0.0


class Decided(TurnResult):
    """The Architect's word on an item; empty where it gave none."""

    kind: Literal["decided"] = "decided"
    decision: Literal["", "plan", "continue", "pivot", "escalate"] = ""
    reason: str = ""
    missing_input: str = ""
    strategy: Strategy | None = None


class Chosen(TurnResult):
    kind: Literal["chosen"] = "chosen"
    item_id: str = ""
    reason: str = ""


class Probed(ResultBase):
    kind: Literal["probed"] = "probed"
    state: ProbeState
    blob: str = ""
    size: int = 0
    # Kinds of secrets that were taken out, and how many of each.
    redactions: dict[str, int] = Field(default_factory=dict)
    detail: str = ""


class Reflected(ResultBase):
    kind: Literal["reflected"] = "reflected"
    words: str = ""
    model: str = ""
    usage: Usage = Usage()
    detail: str = ""
    transcript_blobs: tuple[str, ...] = ()
