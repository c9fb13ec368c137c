"""What the model roles did on an item, as the wire message that people and programs see."""

from anneal.supervisor.v1 import story_pb2 as pb
from anneal_contracts.probing import key
from anneal_contracts.turns import TurnResult
from anneal_core.budget import item_seconds
from anneal_core.state import Afterthought, Engagement, ItemState, Known, RunState


def story(state: RunState, item: ItemState) -> pb.ItemStory:
    """Memories, decisions, questions, turns and lessons of an item, and what decided its end."""
    return pb.ItemStory(
        memories=[
            pb.MemoryShown(id=r.id, kind=r.kind, text=r.text, run_id=r.run_id, utility=r.utility) for r in item.recalled
        ],
        decisions=[_decision(e) for e in item.engagements],
        probes=[_probe(k) for k in item.facts],
        turns=[
            pb.TurnTold(
                script_title=p.candidate.title if p.candidate else "",
                mode=p.mode,
                detail=p.detail or (p.candidate.policy if p.candidate and not p.candidate.allowed else ""),
                similarity=p.similarity,
                model=p.model,
                calls=p.usage.calls,
                transcripts=p.transcript_blobs,
            )
            for p in item.proposals
        ],
        lessons=[_lesson(x) for x in item.lessons],
        chosen_why=item.chosen_why,
        decided_by=item.decided_by,
        missing_input=item.missing_input,
        steps=item.steps,
        tokens=item.tokens,
        budget_s=round(item_seconds(state, item), 1),
        usual_s=round(item.usual_s, 1),
    )


def _decision(engagement: Engagement) -> pb.DecisionTold:
    said = engagement.said
    return pb.DecisionTold(
        decision=said.decision,
        why=engagement.why,
        reason=said.reason,
        approach=said.strategy.approach if said.strategy else "",
        steps=said.strategy.steps if said.strategy else (),
        missing_input=said.missing_input,
        model=said.model,
        problem=_problem(said),
        after_attempts=engagement.attempts,
    )


def _probe(known: Known) -> pb.ProbeTold:
    return pb.ProbeTold(
        question=key(known.fact.call),
        state=known.fact.state.value,
        blob=known.fact.blob,
        detail=known.fact.detail,
        size=known.size,
        redactions=dict(known.redactions),
        after_attempts=known.attempts,
    )


def _lesson(thought: Afterthought) -> pb.LessonTold:
    said = thought.said
    told = pb.LessonTold(attempt=thought.attempt, similarity=said.similarity, model=said.model, problem=_problem(said))
    if said.lesson is not None:
        told.lesson, told.mechanism, told.certainty = said.lesson.lesson, said.lesson.mechanism, said.lesson.certainty
        told.bans.extend(said.lesson.bans)
        told.banned_text.extend(said.lesson.banned_text)
    return told


def _problem(said: TurnResult) -> str:
    return f"{said.mode}: {said.detail}" if said.mode else ""
