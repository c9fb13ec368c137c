"""Giving a command out: its identity, its deadline, and the event that says so."""

from anneal_contracts.canonical import digest

from anneal_core import events as ev
from anneal_core.folding import try_key
from anneal_core.state import RunState

Payloads = tuple[ev.Payload, ...]

# Seconds a command may take before it is given out again; what the skill declares goes before these.
_PATIENCE = {
    "acquire": 20.0,
    "snapshot": 120.0,
    "plan": 120.0,
    "choose_item": 300.0,
    "plan_item": 300.0,
    "review_item": 300.0,
    "propose": 300.0,
    "learn": 300.0,
    "restore": 90.0,
    "rewind": 90.0,
    "check_health": 60.0,
    "reflect": 45.0,
    "record": 30.0,
    "release": 30.0,
}
# Beyond an action's own timeout: connecting, markers, and a worker that has to be started again.
_APPLY_SLACK_S = 60.0


def issue(
    state: RunState,
    now: float,
    kind: str,
    *,
    item_id: str = "",
    attempt: int = 0,
    generation: int = 0,
    force: bool = False,
    group_no: int = 0,
    mode: str = "",
    why: str = "",
    offered: tuple[str, ...] = (),
) -> Payloads:
    try_no = state.tries.get(try_key(kind, item_id, attempt, generation), 0) + 1
    # A restore that prepares the same attempt anew is another command than the one that ends it: seq tells them apart.
    # A generation is taken once: given out again, it is the same command, and what is under way goes on.
    seq = 0 if kind == "snapshot" else state.seq
    command_id = digest(state.run_id, kind, item_id, attempt, generation, seq)[:32]
    deadline = now + _patience(state, kind, item_id)
    return (
        ev.CommandIssued(
            command_id=command_id,
            kind=kind,
            item_id=item_id,
            attempt=attempt,
            generation=generation,
            force=force,
            group=group_no,
            mode=mode,
            why=why,
            offered=offered,
            deadline=round(deadline, 3),
            try_no=try_no,
        ),
    )


def _patience(state: RunState, kind: str, item_id: str) -> float:
    if kind in _PATIENCE:
        return _PATIENCE[kind]
    assert state.policy is not None
    if kind == "discover":
        return state.policy.discover_timeout_s
    if kind == "verify":
        return state.policy.verify_timeout_s
    if kind in ("evaluate", "probe"):
        return state.policy.evaluate_timeout_s
    if kind == "evaluate_group":
        return state.policy.evaluate_timeout_s * len(state.group)
    if kind in ("gate", "look_again", "resolve_deferred"):
        return state.policy.verify_timeout_s
    attempt = state.items[item_id].open_attempt
    return (attempt.candidate.timeout_s if attempt else 0.0) + _APPLY_SLACK_S
