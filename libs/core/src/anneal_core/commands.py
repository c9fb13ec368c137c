"""From a command that the engine issued to the message that a worker or the evaluator gets.

The log keeps only what identifies a command; everything else of the message is derived from the state, so that a
redelivered command is always built from the same facts.
"""

from typing import Any

from anneal_contracts.canonical import digest
from anneal_contracts.facts import (
    Action,
    Health,
    ItemDetail,
    Mutability,
    Outcome,
)
from anneal_contracts.work import (
    Apply,
    Candidate,
    CheckGate,
    CheckHealth,
    Command,
    Discover,
    Evaluate,
    EvaluateGroup,
    LookAgain,
    MakePlan,
    Reflect,
    ResolveDeferred,
    Verify,
)

from anneal_core.events import ItemStateName
from anneal_core.gate import to_look_at
from anneal_core.ordering import inapplicable_before, to_plan
from anneal_core.state import Attempt, ItemState, Pending, RunState
from anneal_core.turn_commands import choosing, past_attempts, turn_on

# Done by the supervisor's own calls to the checkpoint and memory services; the rest goes out as work.
DIRECT_KINDS = frozenset({"acquire", "rewind", "snapshot", "restore", "record", "release"})

# How long a change on a target without snapshots stands unless a new session shows that the target answers: longer than
# any one service takes to come back, and short of the slack of an apply or undo (anneal_core.issue).
REACH_GRACE_S = 30.0


def effect_key(run_id: str, item_id: str, attempt: int, action_hash: str, kind: str = "apply") -> str:
    """Identity of one mutation of a target: hash(run, item, attempt, action)."""
    return digest(run_id, item_id, attempt, action_hash, kind)


def apply_key(run_id: str, item_id: str, attempt: Attempt) -> str:
    """Key of the effect of an attempt. What was cut off, taken back and is applied anew is another effect."""
    again = attempt.interruptions
    kind = f"apply/{again}" if again else "apply"
    return effect_key(run_id, item_id, attempt.number, attempt.candidate.hash, kind)


def action_of(candidate: Candidate, content: str, undo: str | None) -> Action:
    """The action of a rung with its content. Raises ValueError where the content is not what was planned."""
    action = Action(content=content, undo=undo, **candidate.model_dump(exclude={"hash", "blob", "undo_blob", "banned"}))
    if action.hash != candidate.hash:
        raise ValueError(f"blob {candidate.blob} does not hold the planned script")
    return action


def undo_of(candidate: Candidate, undo: str) -> Action:
    """The action that takes a rung back by script."""
    title = f"take back: {candidate.title}"
    return Action(source=candidate.source, kind="undo", title=title, content=undo, mutability=Mutability.REVERSIBLE)


def _without_texts(d: ItemDetail) -> ItemDetail:
    """Hundreds of items have to fit into one message; a ladder needs no prose."""
    return d.model_copy(update={"description": "", "rationale": "", "fix_text": "", "check_text": "", "references": {}})


def _that_were(state: RunState, outcome: Outcome) -> tuple[str, ...]:
    """The rules of which the first scan said this."""
    return tuple(sorted(i for i, o in state.outcomes_before.items() if o is outcome))


def _health_before(state: RunState) -> Health:
    return state.health or Health(reachable=True, privileged=True)


def _mission_services(state: RunState) -> tuple[str, ...]:
    assert state.policy is not None
    of_target = state.access.mission_services if state.access else ()
    return tuple(dict.fromkeys((*state.policy.mission_services, *of_target)))


def build(state: RunState, pending: Pending, action: Action | None = None) -> Command:
    """The message of a pending command; action: what apply and undo run. Raises ValueError for a direct command."""
    assert state.spec is not None
    common: dict[str, Any] = {
        "command_id": pending.command_id,
        "run_id": state.run_id,
        "skill": state.spec.skill,
        "profile": state.spec.profile,
        "tailoring_blob": state.spec.tailoring_blob,
        "target": state.spec.target,
        "fencing_token": state.fencing_token,
        "deadline": pending.deadline,
    }
    if item := state.items.get(pending.item_id):
        return _of_an_item(state, pending, item, common, action)
    return _of_the_run(state, pending, common)


def _of_the_run(state: RunState, pending: Pending, common: dict[str, Any]) -> Command:
    assert state.spec is not None
    services = _mission_services(state)
    match pending.kind:
        case "discover":
            return Discover(**common, item_ids=state.spec.item_ids, mission_services=services)
        case "verify":
            return Verify(
                **common,
                passed_before=_that_were(state, Outcome.PASS),
                inapplicable_before=_that_were(state, Outcome.NOT_APPLICABLE),
                mission_services=services,
            )
        case "check_health":
            return CheckHealth(**common, mission_services=services)
        case "evaluate_group":
            return EvaluateGroup(
                **common, item_ids=state.group, health_before=_health_before(state), mission_services=services
            )
        case "gate":
            return CheckGate(
                **common, item_ids=to_look_at(state), health_before=_health_before(state), mission_services=services
            )
        case "look_again":
            return LookAgain(**common, item_ids=inapplicable_before(state))
        case "resolve_deferred":
            waiting = [i for i in state.items.values() if i.state is ItemStateName.DEFERRED]
            items = tuple(i.detail for i in waiting if i.attempts[-1].mode == pending.mode)
            return ResolveDeferred(**common, mode=pending.mode, items=items, mission_services=services)
        case "choose_item":
            return choosing(state, pending, common)
        case "plan":
            return MakePlan(
                **common,
                items=tuple(_without_texts(d) for d in to_plan(state)),
                fingerprint=state.fingerprint,
                can_snapshot=_can_snapshot(state),
                use_memory=state.spec.use_memory,
                model_profile=state.spec.model_profile,
            )
    raise ValueError(f"{pending.kind} is no message for a worker")


def _of_an_item(
    state: RunState, pending: Pending, item: ItemState, common: dict[str, Any], action: Action | None
) -> Command:
    assert state.spec is not None
    item_id, attempt = pending.item_id, pending.attempt
    match pending.kind:
        case "apply" | "undo" if action is not None:
            return _effect(state, pending, item, common, action)
        case "evaluate":
            return Evaluate(
                **common,
                item_id=item_id,
                attempt=attempt,
                guarded=_guarded(state, item),
                health_before=_health_before(state),
                mission_services=_mission_services(state),
            )
        case "reflect":
            past, profile = past_attempts(item), state.spec.model_profile
            return Reflect(**common, item=item.detail, past=past, model_profile=profile, reason=item.reason)
    return turn_on(state, pending, item, common)


def _effect(state: RunState, pending: Pending, item: ItemState, common: dict[str, Any], action: Action) -> Apply:
    attempt = item.open_attempt
    if attempt is None:
        raise ValueError(f"no attempt at {pending.item_id} is under way")
    applied = apply_key(state.run_id, pending.item_id, attempt)
    undo = pending.kind == "undo"
    return Apply(
        **common,
        item_id=pending.item_id,
        attempt=pending.attempt,
        action=action,
        effect_key=effect_key(state.run_id, pending.item_id, pending.attempt, action.hash, "undo") if undo else applied,
        undoes=applied if undo else "",
        command_seq=pending.seq,
        guard_s=REACH_GRACE_S if _guarded(state, item) and not undo else 0.0,
    )


def _guarded(state: RunState, item: ItemState) -> str:
    """Key of the open attempt's effect where only the target itself could take it back once it has cut us off."""
    attempt = item.open_attempt
    if attempt is None or _can_snapshot(state) or not attempt.candidate.undo_blob:
        return ""
    return apply_key(state.run_id, item.detail.id, attempt)


def _can_snapshot(state: RunState) -> bool:
    return state.access is not None and state.access.can_snapshot
