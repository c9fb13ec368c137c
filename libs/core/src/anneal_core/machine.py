"""The state machine of a run, as one table: in which phases a command may be given out, and which phase it leads to.

A command is the only thing that moves a run from one phase to another, besides its end; each is an event of the log.
"""

from anneal_core.state import Phase

_WORKING = frozenset({Phase.PLANNING, Phase.EXECUTING, Phase.VALIDATING, Phase.RECOVERING})
# Where a run begins: a fork of one that knew its items begins as one that recovers.
_FIRST = frozenset({Phase.IDLE, Phase.RECOVERING})
_ANY = frozenset(Phase) - {Phase.FINISHED, Phase.CANCELLED, Phase.FAILED}

# kind -> (phases it may come from, phase it leads to; None: the phase stays)
TRANSITIONS: dict[str, tuple[frozenset[Phase], Phase | None]] = {
    "acquire": (_FIRST, None),
    "rewind": (_FIRST, None),
    "snapshot": (_FIRST | {Phase.VALIDATING}, None),
    "discover": (frozenset({Phase.IDLE, Phase.DISCOVERING}), Phase.DISCOVERING),
    "plan": (_WORKING | {Phase.DISCOVERING, Phase.VERIFYING}, Phase.PLANNING),
    "choose_item": (_WORKING, None),
    "plan_item": (_WORKING, None),
    "review_item": (_WORKING, None),
    "propose": (_WORKING, Phase.EXECUTING),
    "probe": (_WORKING, None),
    "learn": (_WORKING, None),
    "apply": (_WORKING, Phase.EXECUTING),
    "undo": (_WORKING, Phase.RECOVERING),
    "evaluate": (frozenset({Phase.EXECUTING, Phase.VALIDATING}), Phase.VALIDATING),
    "evaluate_group": (frozenset({Phase.EXECUTING, Phase.VALIDATING}), Phase.VALIDATING),
    "gate": (_WORKING, Phase.VALIDATING),
    "look_again": (_WORKING, None),
    "resolve_deferred": (_WORKING | {Phase.RESOLVING_DEFERRED}, Phase.RESOLVING_DEFERRED),
    "restore": (_WORKING, Phase.RECOVERING),
    "check_health": (frozenset({Phase.RECOVERING}), None),
    "reflect": (_ANY, None),
    "verify": (_WORKING | {Phase.RESOLVING_DEFERRED, Phase.VERIFYING}, Phase.VERIFYING),
    "record": (_ANY, Phase.CLOSING),
    "release": (_ANY, Phase.CLOSING),
}


class IllegalEvent(Exception):
    """An event that does not fit the state; the state stays as it was."""


def next_phase(phase: Phase, kind: str) -> Phase:
    """The phase after a command of this kind. Raises IllegalEvent where the table has no such row."""
    row = TRANSITIONS.get(kind)
    if row is None or phase not in row[0]:
        raise IllegalEvent(f"no command {kind!r} in phase {phase.value}")
    return row[1] or phase
