"""The simulated planner and model: plans that leave something out, and a model that lies, stalls and babbles."""

from typing import TYPE_CHECKING, Literal

from anneal_contracts.base import Usage
from anneal_contracts.facts import CoreMode, FixSource, ProbeCall, ProbeState
from anneal_contracts.turns import (
    ChooseItem,
    Chosen,
    Decided,
    Learn,
    Learnt,
    Lesson,
    PlanItem,
    Probe,
    Probed,
    Propose,
    Proposed,
    Reflect,
    Reflected,
    ReviewItem,
    Strategy,
)
from anneal_contracts.work import Ladder, MakePlan, Planned, Result

from tests.simulation.bus import Message
from tests.simulation.checkpoint import CallError
from tests.simulation.kernel import Process, Steps

if TYPE_CHECKING:
    from tests.simulation.world import World

# What any turn may suffer.
_TROUBLE = (
    ("babbles", 0.08),
    ("stalls", 0.03),
    ("answers too late", 0.02),
    ("is not there", 0.04),
)
# What a script of a model's may be, beside what any script may be.
_BAD_ANSWERS = (
    ("repeats itself", 0.06),
    ("wants to stop sshd", 0.05),
    ("wants to delete data", 0.03),
    ("misses an input", 0.04),
    ("asks for facts without end", 0.04),
)
_CALL_S = 3.0


def plan(world: "World", process: Process, message: Message) -> Steps[Result]:
    """The ladders; without memory the recalled rungs are missing."""
    command = message.command
    assert isinstance(command, MakePlan)
    yield 0.5
    chance = world.chance
    forgotten = chance.fault("memory", f"memory does not answer to {message.label}", 0.05)
    ladders, after = [], {}
    for item in command.items:
        if chance.fault("worker", f"{message.label} leaves {item.id} out", 0.01):
            continue
        rungs = world.scenario.ladders[item.id]
        kept = tuple(c for c in rungs if not (forgotten and c.source is FixSource.RECALLED))
        usual_s = 0.0 if forgotten else chance.pick(f"{item.id} usual time", (0.0, 0.0, 10.0, 60.0))
        ladders.append(Ladder(item_id=item.id, candidates=kept, usual_s=usual_s))
        if not forgotten and chance.draw(f"{item.id} was undone before") < 0.05:
            after[item.id] = (chance.pick(f"{item.id} was undone by", command.items).id,)
    may = "none" if chance.fault("model", f"no model for {message.label}", 0.05) else world.scenario.model_may
    return Planned(command_id=command.command_id, ladders=tuple(ladders), model_may=may, after=after)


def _turn(world: "World", message: Message, calls_left: int) -> Steps[tuple[str, Usage]]:
    """The time and the calls of a turn: what went wrong with it, and what it cost."""
    if calls_left < 1:
        return "may not call", Usage()
    name = f"model, {message.label}"
    trouble = world.chance.one_of("model", name, _TROUBLE).rpartition(": ")[2]
    calls = calls_left if trouble == "babbles" else 1 + int(world.chance.draw(f"{name} calls") * calls_left)
    yield {"stalls": 9_000.0, "answers too late": 290.0}.get(trouble, _CALL_S * calls)
    if trouble == "is not there":
        return trouble, Usage()
    return trouble, Usage(calls=calls, prompt_tokens=100 * calls, completion_tokens=20 * calls)


def _no_answer(trouble: str) -> dict[str, str]:
    mode = {"babbles": "contract_violation", "may not call": "budget_exhausted"}.get(trouble, "model_unavailable")
    return {"mode": mode, "detail": f"the model {trouble}"}


def propose(world: "World", process: Process, message: Message) -> Steps[Result]:
    """A turn of the Worker: a script that is right, a script that is wrong, questions, or nothing."""
    command = message.command
    assert isinstance(command, Propose)
    trouble, usage = yield from _turn(world, message, command.calls_left)
    cid, item_id = command.command_id, command.item.id
    if trouble in ("babbles", "is not there", "may not call"):
        return Proposed(command_id=cid, usage=usage, **_no_answer(trouble))
    bad = world.chance.one_of("model", f"script of {message.label}", _BAD_ANSWERS).rpartition(": ")[2]
    if bad == "misses an input":
        return Proposed(command_id=cid, mode=CoreMode.MISSING_INPUT, detail="which key?", usage=usage)
    asks = command.probes_now > 0 and world.chance.draw(f"{message.label} asks {len(command.facts)}") < 0.4
    if asks or bad == "asks for facts without end":
        return Proposed(command_id=cid, probes=(ProbeCall(tool="read"),) * (9 if bad else 1), usage=usage)
    first = bad == "repeats itself"
    name = f"{item_id} written {1 if first else command.attempt}"
    made = world.scenario.rung(item_id, name, FixSource.MODEL, spoilt=bad)
    similarity = world.chance.draw(f"{name} similarity") if command.past else 0.0
    return Proposed(command_id=cid, candidate=made, similarity=1.0 if first else similarity, usage=usage)


def probe(world: "World", process: Process, message: Message) -> Steps[Result]:
    """A fact about the target."""
    command = message.command
    assert isinstance(command, Probe)
    yield 0.2
    world.target.connect()
    state = world.chance.pick(f"{message.label} finds", tuple(ProbeState))
    return Probed(command_id=command.command_id, state=state)


def learn(world: "World", process: Process, message: Message) -> Steps[Result]:
    """A turn of the Reflector on one failed attempt."""
    command = message.command
    assert isinstance(command, Learn)
    trouble, usage = yield from _turn(world, message, command.calls_left)
    if trouble and trouble != "answers too late":
        return Learnt(command_id=command.command_id, usage=usage, **_no_answer(trouble))
    lesson = Lesson(attempt=command.attempt, mechanism="it ran too early", lesson="wait", certainty="low")
    similarity = world.chance.draw(f"{message.label} similarity")
    return Learnt(command_id=command.command_id, lesson=lesson, similarity=similarity, usage=usage)


def choose_item(world: "World", process: Process, message: Message) -> Steps[Result]:
    """The Architect picks; now and then something that nobody offered."""
    command = message.command
    assert isinstance(command, ChooseItem)
    trouble, usage = yield from _turn(world, message, command.calls_left)
    if trouble and trouble != "answers too late":
        return Chosen(command_id=command.command_id, usage=usage, **_no_answer(trouble))
    invented = world.chance.fault("model", f"model, {message.label} invents an item", 0.08)
    picked = "nowhere" if invented else world.chance.pick(f"{message.label} picks", command.items).id
    return Chosen(command_id=command.command_id, item_id=picked, reason="a feeling", usage=usage)


def look_at_item(world: "World", process: Process, message: Message) -> Steps[Result]:
    """The Architect makes a plan for an item, or looks at it again on evidence."""
    command = message.command
    assert isinstance(command, PlanItem | ReviewItem)
    trouble, usage = yield from _turn(world, message, command.calls_left)
    if trouble and trouble != "answers too late":
        return Decided(command_id=command.command_id, usage=usage, **_no_answer(trouble))
    again: tuple[Literal["continue", "pivot", "escalate"], ...] = ("continue", "continue", "pivot", "escalate")
    decision: Literal["plan", "continue", "pivot", "escalate"] = "plan"
    if isinstance(command, ReviewItem):
        decision = world.chance.pick(f"{message.label} decides", again)
    strategy = Strategy(diagnosis="an order", approach="another") if decision in ("plan", "pivot") else None
    return Decided(command_id=command.command_id, decision=decision, reason="so", strategy=strategy, usage=usage)


def reflect(world: "World", process: Process, message: Message) -> Steps[Result]:
    """Words about an item that was given up."""
    command = message.command
    assert isinstance(command, Reflect)
    trouble = world.chance.one_of("model", f"model, words on {command.item.id}", (("stalls", 0.1), ("fails", 0.1)))
    yield 9_000.0 if trouble.endswith("stalls") else 4.0
    if trouble:
        raise CallError("internal", "the model said nothing of use")
    return Reflected(command_id=command.command_id, words="it failed", usage=Usage(calls=1))
