"""The part of an item's story behind its attempts: memories, plans, questions, lessons, and what decided the end."""

from collections.abc import Mapping

from anneal.supervisor.v1.story_pb2 import DecisionTold, ItemStory, LessonTold, ProbeTold, TurnTold
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

_DECISIONS = {
    "plan": "made a plan",
    "continue": "looked again and went on",
    "pivot": "looked again and took another way",
    "escalate": "gave it to a person",
    "": "was asked and had no answer",
}
_PROBES = {
    "answered": "",
    "missing": "there is no such thing",
    "denied": "refused",
    "failed": "it could not be answered",
}
_DECIDED_BY = {
    "attempts": "all attempts were used",
    "gaps": "too many attempts ran well and left the check failing",
    "no_fix": "no fix was left that may run",
    "response": "the declared response to how the last attempt failed",
    "missing_input": "something is missing that only a person can give",
    "architect": "the Architect's word",
    "item_time": "the item's time was used up",
    "item_steps": "the item's steps were used up",
    "item_tokens": "the item's tokens were used up",
    "run": "a bound of the run, or its cancellation",
    "dependency": "an item that it depends on came to nothing",
}
_KINDS = {"tip": "worked before", "ban": "failed before", "lesson": "lesson"}
# Lines of an answer that are shown; --json has the blob's name.
_ANSWER_LINES = 12


def print_memories(out: Console, story: ItemStory) -> None:
    """What memory gave for the item, with the ids that `forget` takes."""
    if story.memories:
        out.print("\nMemory gave:", style="bold")
    for memory in story.memories:
        worth = f", worth {memory.utility:.2f}" if memory.utility else ""
        head = f"{_KINDS.get(memory.kind, memory.kind)} ({memory.id[:12]}, from {memory.run_id}{worth}): "
        _indented(out, Text.assemble((head, "dim"), memory.text.strip()))


def print_before(out: Console, story: ItemStory, attempts: int, texts: Mapping[str, str]) -> None:
    """What the Architect decided and what was asked when there had been so many attempts."""
    for decision in story.decisions:
        if decision.after_attempts == attempts:
            _print_decision(out, decision)
    asked = [probe for probe in story.probes if probe.after_attempts == attempts]
    if asked:
        out.print("\nThe model asked about the machine:", style="bold")
    for probe in asked:
        _print_probe(out, probe, texts)


def print_after(out: Console, story: ItemStory, attempt: int) -> None:
    """What was learnt from an attempt."""
    for lesson in story.lessons:
        if lesson.attempt == attempt:
            _print_lesson(out, lesson)


def print_empty_turns(out: Console, story: ItemStory) -> None:
    """Turns of the model's that led to no attempt."""
    empty = [turn for turn in story.turns if turn.mode or turn.detail]
    if empty:
        out.print("\nTurns of the model that led to nothing:", style="bold")
    for turn in empty:
        _indented(out, Text(_turn(turn)))


def print_decided(out: Console, story: ItemStory) -> None:
    """What decided the end, what is missing, and what it cost."""
    if story.decided_by:
        out.print(f"What decided it: {_DECIDED_BY.get(story.decided_by, story.decided_by)}.", markup=False)
    if story.missing_input:
        out.print(Text.assemble(("What a person has to supply: ", "bold"), story.missing_input))
    if story.tokens:
        usual = f"; such an item took {story.usual_s:.0f} s before" if story.usual_s else ""
        budget = f", with {story.budget_s:.0f} s to spend{usual}" if story.budget_s else ""
        out.print(f"It took {story.steps} steps and {story.tokens} tokens{budget}.", markup=False)


def _print_decision(out: Console, decision: DecisionTold) -> None:
    by = f" ({decision.model})" if decision.model else ""
    out.print(
        f"\nThe Architect{by} {_DECISIONS.get(decision.decision, decision.decision)}:", style="bold", markup=False
    )
    for title, text in (
        ("Asked because", decision.why),
        ("Why", decision.reason),
        ("Approach", decision.approach),
        ("Missing", decision.missing_input),
        ("Problem", decision.problem),
    ):
        if text:
            _indented(out, Text.assemble((f"{title}: ", "bold"), text))
    for number, step in enumerate(decision.steps, start=1):
        _indented(out, Text(f"{number}. {step}"))


def _print_probe(out: Console, probe: ProbeTold, texts: Mapping[str, str]) -> None:
    word = _PROBES.get(probe.state, probe.state)
    why = ": ".join(part for part in (word, probe.detail) if part)
    taken = ", ".join(f"{count} {kind}" for kind, count in sorted(probe.redactions.items()))
    notes = [why] if why else []
    notes += [f"taken out: {taken}"] if taken else []
    _indented(out, Text.assemble((probe.question, "bold"), f" {'; '.join(notes)}" if notes else ""))
    answer = texts.get(probe.blob, "").rstrip().splitlines()
    if answer:
        more = [f"... {len(answer) - _ANSWER_LINES} more lines"] if len(answer) > _ANSWER_LINES else []
        shown = "\n".join([*answer[:_ANSWER_LINES], *more])
        out.print(Padding(Text(shown, style="dim"), (0, 0, 0, 6), expand=False))


def _print_lesson(out: Console, lesson: LessonTold) -> None:
    if lesson.problem:
        _indented(out, Text(f"The Reflector had no lesson: {lesson.problem}"))
        return
    like = f", {lesson.similarity:.2f} like an earlier one" if lesson.similarity else ""
    head = f"Lesson ({lesson.model}, {lesson.certainty} certainty{like}): "
    _indented(out, Text.assemble((head, "bold"), lesson.lesson))
    _indented(out, Text.assemble(("Cause: ", "bold"), lesson.mechanism))
    for ban in [*lesson.bans, *(f"any script with: {text}" for text in lesson.banned_text)]:
        _indented(out, Text.assemble(("Not again: ", "bold"), ban))


def _turn(turn: TurnTold) -> str:
    what = f"“{turn.script_title}”: " if turn.script_title else ""
    like = f" ({turn.similarity:.2f} like an earlier one)" if turn.similarity else ""
    return f"{what}{turn.mode or 'refused'}: {turn.detail}{like}"


def _indented(out: Console, text: Text) -> None:
    out.print(Padding(text, (0, 0, 0, 2), expand=False))
