"""The simulated evaluator: it looks at the target, and now and then it is wrong, slow or silent."""

from typing import TYPE_CHECKING

from anneal_contracts.facts import DeferredItemOutcome, Health, ItemDetail, Outcome, ScoreCounts
from anneal_contracts.work import (
    CheckGate,
    CheckHealth,
    DeferredResolved,
    Discover,
    Discovered,
    Evaluate,
    Evaluated,
    EvaluateGroup,
    GroupEvaluated,
    HealthChecked,
    LookAgain,
    LookedAgain,
    ResolveDeferred,
    Result,
    Verified,
    Verify,
)

from tests.simulation.bus import Message
from tests.simulation.kernel import Process, Steps
from tests.simulation.scenario import BYSTANDERS, MODES
from tests.simulation.target import Unreachable

if TYPE_CHECKING:
    from tests.simulation.world import World

_LOOK_S = 0.2
_SCAN_S = 4.0
_FLAPS = (
    ("says the opposite", 0.03),
    ("errs", 0.015),
    ("names a mode of the skill", 0.02),
    ("names a mode that nobody declared", 0.005),
    ("sees a unit fail that runs", 0.01),
)
_DELAYS = (("is slow", 0.02), ("never answers", 0.008))


def _worse(before: Health, now: Health) -> tuple[str, ...]:
    if not now.reachable:
        return (f"a new session cannot be opened: {now.detail}",)
    found = ["sudo no longer works"] if before.privileged and not now.privileged else []
    return (*found, *(f"unit {u} is newly failed" for u in sorted(set(now.failed_units) - set(before.failed_units))))


def _takes(world: "World", message: Message, seconds: float) -> Steps[None]:
    """The time a look takes."""
    fault = world.chance.one_of("evaluator", f"look for {message.label}", _DELAYS)
    slow = 9_000.0 if fault.endswith("never answers") else 15.0
    yield slow if fault else seconds


def _judged(world: "World", message: Message, item_id: str, before: Health) -> Evaluated:
    """The verdict on one item as it is told."""
    cid = message.command.command_id
    health = world.target.health()
    fault = world.chance.one_of("evaluator", f"verdict on {item_id} by {message.label}", _FLAPS)
    if fault.endswith("that runs") and health.reachable:
        health = health.model_copy(update={"failed_units": (*health.failed_units, "y.service")})
    if worse := _worse(before, health):
        return Evaluated(command_id=cid, outcome=Outcome.OTHER, health=health, worse=worse)
    outcome, mode = world.target.verdict(item_id), ""
    if world.target.files.get(item_id, "").startswith("pending") and outcome is Outcome.FAIL:
        mode = "needs_reboot"
    if fault.endswith("opposite"):
        outcome = Outcome.FAIL if outcome is Outcome.PASS else Outcome.PASS
    elif fault.endswith("errs"):
        outcome = Outcome.ERROR
    elif fault.endswith("of the skill"):
        mode = world.chance.pick(f"{fault}, which", MODES).name
    elif fault.endswith("nobody declared"):
        mode = "unheard_of"
    return Evaluated(command_id=cid, outcome=outcome, health=health, skill_mode=mode)


def evaluate(world: "World", process: Process, message: Message) -> Steps[Result]:
    """One item."""
    command = message.command
    assert isinstance(command, Evaluate)
    yield from _takes(world, message, _LOOK_S)
    world.witness.looked_at()
    found = _judged(world, message, command.item_id, command.health_before)
    health = found.health
    if command.guarded and health.reachable and health.privileged and world.target.disarm(command.guarded):
        worse = ("the timer took the change back: no new session had come in time",)
        return found.model_copy(update={"outcome": Outcome.OTHER, "worse": worse})
    return found


def evaluate_several(world: "World", process: Process, message: Message) -> Steps[Result]:
    """Several items at one look: those of a group, or all that a gate asks about."""
    command = message.command
    assert isinstance(command, EvaluateGroup | CheckGate)
    yield from _takes(world, message, _LOOK_S)
    world.witness.looked_at()
    found = {i: _judged(world, message, i, command.health_before) for i in command.item_ids}
    if world.chance.fault("evaluator", f"{message.label} leaves an item out", 0.01):
        found.popitem()
    return GroupEvaluated(command_id=command.command_id, items=found)


def resolve_deferred(world: "World", process: Process, message: Message) -> Steps[Result]:
    """The last word on deferred items, told one by one; what was told before a crash is not asked for again."""
    command = message.command
    assert isinstance(command, ResolveDeferred)
    settled = yield from world.shell.progress(command.command_id, None)
    outcomes = []
    for item in (i for i in command.items if i.id not in settled):
        yield from _takes(world, message, _LOOK_S)
        world.target.connect()
        held = world.target.verdict(item.id) is Outcome.PASS
        word = DeferredItemOutcome(
            item_id=item.id, state="completed" if held else "escalated", reason="it holds" if held else "it does not"
        )
        if world.chance.draw(f"{message.label} tells of {item.id} at once") < 0.7:
            yield from world.shell.progress(command.command_id, word)
        yield from world.gap(process, "evaluator", f"evaluator, with {item.id} resolved")
        outcomes.append(word)
    return DeferredResolved(command_id=command.command_id, outcomes=tuple(outcomes))


def look_again(world: "World", process: Process, message: Message) -> Steps[Result]:
    """Rules that did not apply before: those that fail by now."""
    command = message.command
    assert isinstance(command, LookAgain)
    yield from _takes(world, message, _LOOK_S)
    world.target.connect()
    failing = [i for i in command.item_ids if world.target.verdict(i) is Outcome.FAIL]
    items = tuple(ItemDetail(id=i, title=f"Rule {i}") for i in failing)
    return LookedAgain(command_id=command.command_id, items=items)


def _scan(world: "World") -> dict[str, Outcome]:
    return {r: world.target.verdict(r) for r in (*(i.id for i in world.scenario.items), *BYSTANDERS)}


def discover(world: "World", process: Process, message: Message) -> Steps[Result]:
    """The first scan."""
    command = message.command
    assert isinstance(command, Discover)
    yield from _takes(world, message, _SCAN_S)
    world.target.connect()
    outcomes = _scan(world)
    items = tuple(i for i in world.scenario.items if outcomes[i.id] is Outcome.FAIL)
    return Discovered(
        command_id=command.command_id,
        items=items,
        score=ScoreCounts(fail=len(items)),
        outcomes=outcomes,
        fingerprint="f",
        health=world.target.health(),
    )


def verify(world: "World", process: Process, message: Message) -> Steps[Result]:
    """The last scan, with the details of what fails by our doing."""
    command = message.command
    assert isinstance(command, Verify)
    yield from _takes(world, message, _SCAN_S)
    world.target.connect()
    outcomes = _scan(world)
    for rule in outcomes:
        if world.chance.fault("evaluator", f"{message.label} is wrong about {rule}", 0.01):
            outcomes[rule] = Outcome.ERROR

    def failing(rules: tuple[str, ...]) -> tuple[ItemDetail, ...]:
        bad = (Outcome.FAIL, Outcome.ERROR)
        return tuple(ItemDetail(id=r, title=f"Rule {r}") for r in rules if outcomes.get(r) in bad)

    return Verified(
        command_id=command.command_id,
        score=ScoreCounts(),
        outcomes=outcomes,
        health=world.target.health(),
        regressed=failing(command.passed_before),
        became_applicable=failing(command.inapplicable_before),
    )


def check_health(world: "World", process: Process, message: Message) -> Steps[Result]:
    """Health after a boot."""
    command = message.command
    assert isinstance(command, CheckHealth)
    yield from _takes(world, message, _LOOK_S)
    health = world.target.health()
    if not health.reachable:
        raise Unreachable(health.detail)
    return HealthChecked(command_id=command.command_id, health=health)
