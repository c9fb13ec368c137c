"""The state of a run as the wire message that people and programs see."""

from collections.abc import Iterable

from anneal.common.v1 import common_pb2
from anneal.supervisor.v1 import supervisor_pb2 as pb
from anneal_contracts.canonical import canonical_json
from anneal_contracts.facts import FixSource, ScoreCounts
from anneal_contracts.work import Candidate
from anneal_core.chain import Event
from anneal_core.events import Spec
from anneal_core.state import Attempt, ItemState, RunState

from anneal_supervisor.story import story


def counts(score: ScoreCounts) -> common_pb2.ScoreCounts:
    """Counts of a scan on the wire."""
    return common_pb2.ScoreCounts(
        fail=score.fail,
        error=score.error,
        notapplicable=score.notapplicable,
        other=score.other,
        **{"pass": score.passed},
    )


def event_message(event: Event) -> common_pb2.Event:
    """One entry of the log on the wire."""
    message = common_pb2.Event(
        run_id=event.run_id,
        seq=event.seq,
        type=event.type,
        actor=event.actor,
        payload_json=canonical_json(event.payload),
        prev_hash=event.prev_hash,
        hash=event.hash,
        at_unix_s=event.at,
    )
    message.at.FromNanoseconds(int(event.at * 1e9))
    return message


def run_message(state: RunState, now: float, *, items: bool = True) -> pb.Run:
    """The run; without items it is the summary that lists show."""
    assert state.spec is not None
    run = pb.Run(
        run_id=state.run_id,
        spec=_spec(state.spec, state),
        state=state.shown,
        reason=state.reason or state.failure,
        steps=state.steps,
        tokens=state.tokens,
        seconds=round(max(0.0, (state.ended_at or now) - state.created_at), 3),
        fingerprint=state.fingerprint,
        artifacts=dict(state.artifacts),
        last_seq=state.seq,
        notes=list(_notes(state)),
    )
    run.created_at.FromNanoseconds(int(state.created_at * 1e9))
    if state.ended_at:
        run.ended_at.FromNanoseconds(int(state.ended_at * 1e9))
    if (origin := state.origin) is not None:
        run.origin.CopyFrom(
            pb.Origin(
                run_id=origin.parent, seq=origin.seq, hash=origin.hash, generation=origin.generation, by=origin.by
            )
        )
    if state.before is not None:
        run.score.before.CopyFrom(counts(state.before))
    if state.after is not None:
        run.score.after.CopyFrom(counts(state.after))
        run.score.fixed = state.fixed()
        run.regressions.extend(state.regressions())
        run.score.regressed = len(run.regressions)
        run.differences.extend(differences(state))
        run.became_applicable.update({i: o.value for i, o in state.became_applicable().items()})
    run.goal = state.goal
    run.goal_reasons.extend(state.goal_reasons)
    run.diagnoses.extend(
        pb.GateDiagnosis(
            item_id=d.item_id, cause=d.cause, suspects=d.suspects, confidence=d.confidence, action=d.action
        )
        for d in state.diagnoses
    )
    if items:
        run.items.extend(_item(state, state.items[i]) for i in state.order)
        run.recalled_anything = any(
            a.candidate.source is FixSource.RECALLED for i in state.items.values() for a in i.attempts
        )
        run.banned_skips = sum(bool(c.banned) for i in state.items.values() for c in i.ladder)
    return run


def _notes(state: RunState) -> Iterable[str]:
    yield from state.notes
    if state.access is not None and not state.access.can_snapshot:
        yield "this target has no snapshots: only fixes with a script that takes them back may run"
    if state.health_after is not None and state.health is not None:
        new = set(state.health_after.failed_units) - set(state.health.failed_units)
        yield from (f"unit {u} is newly failed at the end of the run" for u in sorted(new))


def differences(state: RunState) -> list[str]:
    """Where the loop's own bookkeeping and the final re-scan disagree."""
    found = []
    for item_id in state.order:
        item = state.items[item_id]
        if item.final is None:
            continue
        if item.state == "completed" and item.final not in ("pass", "notapplicable"):
            found.append(f"{item_id}: the loop kept a fix as working, the re-scan says {item.final.value}")
        elif item.state in ("escalated", "skipped", "deferred") and item.final == "pass":
            found.append(f"{item_id}: the loop left it {item.state.value}, the re-scan says pass")
    return found


def _spec(spec: Spec, state: RunState) -> pb.RunSpec:
    message = pb.RunSpec(
        skill=spec.skill,
        target=spec.target,
        profile=spec.profile,
        item_ids=list(spec.item_ids),
        limit=spec.limit,
        max_attempts=state.limits.max_attempts,
        max_steps=state.limits.max_steps,
        exclusions=[pb.Exclusion(item_id=i, reason=r) for i, r in spec.exclusions.items()],
        dry_run=spec.dry_run,
        model_profile=spec.model_profile,
        no_memory=not spec.use_memory,
    )
    message.time_budget.FromMilliseconds(int(state.limits.time_budget_s * 1000))
    return message


def _item(state: RunState, item: ItemState) -> pb.Item:
    words = item.reflection
    return pb.Item(
        id=item.detail.id,
        title=item.detail.title,
        category=item.detail.category,
        severity=item.detail.severity,
        state=item.state.value,
        reason=item.reason,
        attempts_made=len(item.attempts),
        rung=item.rung,
        attempts=[_attempt(a) for a in item.attempts],
        plan=[_action(c) for c in item.ladder],
        detail_json=canonical_json(item.detail),
        model_words=f"{words.model}: {words.words}" if words and words.words else "",
        final_outcome=item.final.value if item.final else "",
        story=story(state, item),
    )


def _action(c: Candidate) -> pb.Action:
    return pb.Action(
        hash=c.hash,
        source=c.source.value,
        kind=c.kind,
        title=c.title,
        mutability=c.mutability.value,
        policy=c.policy or c.banned,
        blob=c.blob,
        allowed=c.allowed and not c.banned,
    )


def _attempt(a: Attempt) -> pb.Attempt:
    # A group's member waits for the others: its own time is what its parts took.
    took = max(0.0, a.ended_at - a.started_at) if a.ended_at and not a.group else sum(a.parts.values())
    waited, worked = sum(a.parts.values()), sum(a.inner.values())
    message = pb.Attempt(
        number=a.number,
        action=_action(a.candidate),
        ending=a.ending.value if a.ending else "",
        failure_mode=a.mode,
        outcome=a.evaluated.outcome.value if a.evaluated else "",
        evidence=(a.evaluated.evidence if a.evaluated else "") or a.detail,
        exit_code=a.applied.exit_code if a.applied else 0,
        output=a.applied.output if a.applied else "",
        generation=a.generation,
        group=a.group,
        parts={**a.inner, "overhead": round(max(0.0, took - worked, waited - worked), 6)},
    )
    message.took.FromMilliseconds(int(took * 1000))
    return message
