"""Prompts as files, and how texts get into them: labelled, bounded, and fenced where nobody vouches for them.

A skill may override any file by one of the same name in its own prompts folder.
"""

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from anneal_contracts.base import PastAttempt
from anneal_contracts.facts import ItemDetail, ProbeState
from anneal_contracts.probing import key
from anneal_contracts.turns import Fact, Lesson, Recollection, Strategy
from anneal_skillkit.redact import redacted

# Characters a token has at the least in English text and shell; used to fit prompts, never to account for them.
CHARS_PER_TOKEN = 3
# What the system prompt, the contract with its questions, and the chat template take, in tokens.
_FIXED_TOKENS = 1500


@dataclass(frozen=True, kw_only=True)
class Part:
    """One labelled piece of a prompt. weight: its share of the room when not everything fits.

    of_target: it was read on the target, so known shapes of secrets are taken out of it.
    """

    label: str
    text: str
    trusted: bool = False
    of_target: bool = False
    limit: int = 4000
    weight: int = 1


def render(name: str, values: Mapping[str, str], guidance: str = "") -> str:
    """A prompt file with its placeholders filled in one pass: nothing in a value is expanded again.

    guidance: what a skill adds to a role's system prompt, as it stands in the skill's folder.
    """
    text = resources.files("anneal_worker.roles").joinpath("prompts", name).read_text(encoding="utf-8")
    filled = string.Template(text).substitute(values).strip()
    return f"{filled}\n\nOf this kind of work:\n{guidance.strip()}" if guidance.strip() else filled


def room_chars(context_tokens: int, max_tokens: int) -> int:
    """Characters of material that fit beside the fixed part of a prompt and the answer."""
    return max(600, (context_tokens - max_tokens - _FIXED_TOKENS) * CHARS_PER_TOKEN)


def fence(label: str, text: str) -> str:
    """A text nobody vouches for, between marks that it cannot close: the mark depends on the text itself."""
    mark = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"<<<DATA {mark} {label}\n{text}\nDATA {mark}>>>"


def cut(text: str, limit: int) -> str:
    """Text within limit characters: its head and its tail, where errors are, with a mark between them."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 5
    tail = max(0, limit - head - 30)
    return f"{text[:head]}\n[... {len(text) - head - tail} characters cut ...]\n{text[len(text) - tail :]}"


def compose(parts: Sequence[Part], room: int) -> str:
    """The parts in order, each within its limit and all within room; empty ones are left out."""
    parts = [_clean(p) for p in parts if p.text.strip()]
    wanted = {id(p): min(len(p.text), p.limit) for p in parts}
    total = sum(wanted.values())
    if total > room:
        weights = sum(p.weight for p in parts)
        # What small parts leave of their share goes to the large ones.
        spare = sum(max(0, room * p.weight // weights - wanted[id(p)]) for p in parts)
        large = sum(p.weight for p in parts if wanted[id(p)] > room * p.weight // weights) or 1
        for p in parts:
            share = room * p.weight // weights
            if wanted[id(p)] > share:
                wanted[id(p)] = share + spare * p.weight // large
    return "\n\n".join(_shown(p, wanted[id(p)]) for p in parts)


def _shown(part: Part, limit: int) -> str:
    text = cut(part.text.strip(), max(80, limit))
    return f"{part.label}: {text}" if part.trusted else fence(part.label, text)


def _clean(part: Part) -> Part:
    """The part without secrets: the model's server may be another's, and what a target shows by accident stays here."""
    return replace(part, text=redacted(part.text)[0]) if part.of_target else part


def item_parts(item: ItemDetail) -> list[Part]:
    """Everything that the skill knows of an item, most telling first."""
    references = "; ".join(f"{kind} {', '.join(ids)}" for kind, ids in sorted(item.references.items()) if ids)
    return [
        Part(label="Id", text=item.id, trusted=True),
        Part(label="Title", text=item.title, trusted=True, limit=300),
        Part(label="Severity and category", text=f"{item.severity}, {item.category}", trusted=True),
        Part(label="description", text=item.description, weight=2),
        Part(label="how the check decides", text=item.check_text, weight=3),
        Part(label="how the vendor says to fix it", text=item.fix_text, weight=3),
        Part(label="rationale", text=item.rationale, limit=1500),
        Part(label="References", text=references, trusted=True, limit=600),
    ]


def past_parts(past: Sequence[PastAttempt], scripts: Mapping[int, str]) -> list[Part]:
    """What failed before: newest last, and with the most room."""
    parts: list[Part] = []
    for attempt in past:
        newest = attempt is past[-1]
        name = f"Attempt {attempt.number}"
        facts = f"{attempt.source.value} fix “{attempt.title}” ended in {attempt.failure_mode or 'no change'}"
        parts.append(Part(label=name, text=facts, trusted=True, limit=400))
        parts.append(Part(label=f"{name}, its script", text=scripts.get(attempt.number, ""), weight=3 if newest else 1))
        evidence, output = f"{name}, evidence of the check", f"{name}, its output"
        parts.append(Part(label=evidence, text=attempt.evidence, of_target=True, weight=3 if newest else 1))
        parts.append(Part(label=output, text=attempt.output, of_target=True, limit=2500, weight=2 if newest else 1))
        changed = "\n".join(attempt.changed_paths)
        parts.append(Part(label=f"{name}, files that it had changed", text=changed, limit=800))
    return parts


def fact_parts(facts: Sequence[Fact], texts: Mapping[str, str]) -> list[Part]:
    """What was asked about the machine and what it said. texts: blob -> answer. The newest has the most room."""
    parts: list[Part] = []
    for number, fact in enumerate(facts, start=1):
        label = f"Fact {number}, {' '.join(key(fact.call).split())}"
        if fact.state is ProbeState.ANSWERED:
            text = texts.get(fact.blob, "") or "It said nothing."
            parts.append(Part(label=label, text=text, of_target=True, limit=6000, weight=2 if fact is facts[-1] else 1))
        else:
            parts.append(Part(label=f"{label}, {fact.state.value}", text=fact.detail or "no answer", limit=400))
    return parts


def lesson_parts(lessons: Sequence[Lesson], recalled: Sequence[Recollection]) -> list[Part]:
    """What earlier failures taught: of earlier runs, then of this item in this run."""
    parts = [Part(label="Lesson of an earlier run", text=r.text, limit=800) for r in recalled]
    for x in lessons:
        bans = "".join(f"\nDo not: {ban}" for ban in x.bans)
        text = f"{x.lesson}\nCause ({x.certainty} certainty): {x.mechanism}{bans}"
        parts.append(Part(label=f"Lesson of attempt {x.attempt}", text=text, limit=1600))
    return parts


def plan_text(strategy: Strategy | None) -> str:
    """The Architect's plan as a fenced text: another turn's words, made from the same material."""
    if strategy is None:
        return "None: decide on an approach yourself."
    steps = "".join(f"\n{n}. {step}" for n, step in enumerate(strategy.steps, start=1))
    look = "".join(f"\n- {what}" for what in strategy.look_at)
    lines = [f"Diagnosis: {strategy.diagnosis}", f"Approach: {strategy.approach}{steps}"]
    return fence("plan", "\n".join([*lines, f"Worth looking at:{look}"] if look else lines))
