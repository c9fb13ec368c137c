"""The integration gate behind a wave: what was mended so far must still hold before more is built on it.

A gate that fails is diagnosed before anything is mended. The diagnosis is typed and carries a confidence; below 0.7
nothing is changed. What is not mended after three rounds goes to a person.
"""

from anneal_core import events as ev
from anneal_core.budget import out_of_budget
from anneal_core.issue import Payloads, issue
from anneal_core.ordering import reached
from anneal_core.state import ItemState, RunState
from anneal_core.triage import HOLDS

# Least confidence of a diagnosis that something is changed upon.
SURE_ENOUGH = 0.7
_ONE_SUSPECT, _SEVERAL_SUSPECTS, _NO_SUSPECT = 0.9, 0.7, 0.3
# More items than these, none of them sharing a resource with what broke, point at nobody.
_TOO_MANY = 8


def continue_wave(state: RunState, now: float) -> Payloads:
    """What follows when no item of the wave is left: its gate, its mending, or the next wave; nothing: all are done."""
    if state.engine < 2 or state.wave >= len(state.waves):
        return ()
    if any(state.items[i].state is ev.ItemStateName.WAITING for i in reached(state)):
        return ()
    mended = _mended(state)
    # Without time or steps nothing more is built on what was mended: the last scan is its gate.
    idle = not mended or out_of_budget(state, now)
    if not state.gates or state.wave == len(state.waves) - 1 or (idle and state.gate is None):
        return (ev.WaveClosed(wave=state.wave),)
    if state.gate is None:
        return issue(state, now, "gate", generation=state.wave * 100 + state.gate_round)
    found = _diagnoses(state, now)
    return (ev.GateFailed(wave=state.wave, diagnoses=found) if found else ev.WaveClosed(wave=state.wave),)


def to_look_at(state: RunState) -> tuple[str, ...]:
    """The items that a gate judges: all that were completed by a change of this run, in the run's order."""
    return _mended(state)


def _mended(state: RunState) -> tuple[str, ...]:
    done = ev.ItemStateName.COMPLETED
    return tuple(i for i in state.order if state.items[i].state is done and state.items[i].attempts)


def _diagnoses(state: RunState, now: float) -> tuple[ev.GateDiagnosis, ...]:
    assert state.gate is not None
    worse = next((e.worse for e in state.gate.items.values() if e.worse), ())
    if worse:
        cause = f"the machine got worse since the last attempt was judged: {'; '.join(worse)}"
        return (ev.GateDiagnosis(item_id="", cause=cause, confidence=_NO_SUSPECT, action="halt"),)
    broken = [i for i, e in state.gate.items.items() if e.outcome not in HOLDS]
    return tuple(_diagnose(state, now, item_id) for item_id in broken)


def _diagnose(state: RunState, now: float, item_id: str) -> ev.GateDiagnosis:
    """Why an item that held no longer does: something that was changed after it."""
    undone_by = suspects(state, item_id)
    confidence = (_NO_SUSPECT, _ONE_SUSPECT)[len(undone_by)] if len(undone_by) < 2 else _SEVERAL_SUSPECTS
    cause = f"undone by {' or '.join(undone_by)}" if undone_by else "nothing that was changed since explains it"
    known, rounds_left = confidence >= SURE_ENOUGH, state.gate_round < state.limits.gate_rounds
    stop = out_of_budget(state, now)
    mend = known and rounds_left and not stop
    if known and not rounds_left:
        cause = f"{cause}; still so after {state.gate_round} rounds of mending"
    elif known and stop:
        cause = f"{cause}; {stop}"
    return ev.GateDiagnosis(
        item_id=item_id,
        cause=cause,
        suspects=undone_by,
        confidence=confidence,
        action="reopen" if mend else "escalate",
    )


def suspects(state: RunState, item_id: str) -> tuple[str, ...]:
    """The items whose kept changes came after this one's and may have undone it: those that share a resource with it,

    else all of them, unless they are too many to point at anybody.
    """
    since = _kept_at(state.items[item_id])
    resources = set(state.items[item_id].detail.resources)
    later = [i for i in state.order if i != item_id and _kept_at(state.items[i]) > since]
    sharing = [i for i in later if resources & set(state.items[i].detail.resources)]
    return tuple(sharing or (later if len(later) <= _TOO_MANY else ()))


def _kept_at(item: ItemState) -> float:
    """When its last change was kept; -1: never."""
    return next((a.ended_at for a in reversed(item.attempts) if a.ending is ev.Ending.KEPT), -1.0)


def conflicts(state: RunState) -> dict[str, tuple[str, ...]]:
    """Item -> items that undid it, for the next run's order: from the gates, and from the final scan."""
    found: dict[str, set[str]] = {}
    for diagnosis in state.diagnoses:
        if diagnosis.item_id and diagnosis.suspects:
            found.setdefault(diagnosis.item_id, set()).update(diagnosis.suspects)
    for item_id in state.order:
        item = state.items[item_id]
        lost = item.state is ev.ItemStateName.COMPLETED and item.final is not None and item.final not in HOLDS
        if lost and item.attempts:
            found.setdefault(item_id, set()).update(suspects(state, item_id))
    return {i: tuple(sorted(others)) for i, others in sorted(found.items()) if others}
