"""People and other runs: they cancel, pause and resume, answer questions, and want the same target."""

from typing import TYPE_CHECKING

from anneal_core import events as ev
from anneal_core.approvals import open_questions

from tests.simulation.checkpoint import CallError
from tests.simulation.kernel import Process, Steps

if TYPE_CHECKING:
    from tests.simulation.world import World

_RIVAL_TRIES = 6


def plan(world: "World") -> None:
    """What people will do in this run, as far as it is not an answer to something."""
    c = world.chance
    for name, often, latest, does in (
        ("cancels", 0.1, 120.0, _cancel),
        ("pauses", 0.1, 120.0, _pause),
        ("wants the target too", 0.1, 400.0, _rival),
        ("answers", 0.7, 1.0, _answer),
    ):
        if c.draw(f"somebody {name}") < often:
            start = c.between(f"somebody {name}: when", 0.0, latest)
            world.kernel.spawn(Process("somebody"), _later(start, does(world)))


def _later(seconds: float, steps: Steps[None]) -> Steps[None]:
    yield seconds
    yield from steps


def _cancel(world: "World") -> Steps[None]:
    yield from world.shell.say(ev.CancelRequested(reason="lunch"))


def _pause(world: "World") -> Steps[None]:
    """A pause that ends: how long a person takes is not the engine's."""
    seconds = world.chance.between("the pause lasts", 0.5, 500.0)
    yield from world.shell.say(ev.PauseRequested(by="ann"))
    world.kernel.lost_s += seconds
    yield seconds
    yield from world.shell.say(ev.ResumeRequested(by="ann"))


def _answer(world: "World") -> Steps[None]:
    """Two people who look at the questions now and then, and may answer the same one."""
    while not world.store.ended:
        for item_id, asked in open_questions(world.witness.state).items():
            name = f"question {asked.attempt} on {item_id}"
            if world.chance.draw(f"{name} is left alone") < 0.2:
                continue
            hurried = world.chance.draw(f"{name} is misread") < 0.1
            for by in ("ann", "ben")[: 1 + (world.chance.draw(f"{name} has two readers") < 0.3)]:
                answer = ev.ApprovalAnswered(
                    item_id=item_id,
                    attempt=asked.attempt + hurried,
                    action_hash=asked.action_hash,
                    granted=world.chance.draw(f"{by} grants {name}") < 0.6,
                    by=by,
                    reason="" if by == "ann" else "no",
                )
                yield from world.shell.say(answer)
        yield 20.0


def _rival(world: "World") -> Steps[None]:
    """Another run on the same target, which gets it when nobody holds the lease any more."""
    for _ in range(_RIVAL_TRIES):
        token = world.checkpoint.taken_over("rival")
        if token:
            world.tell("rival", f"has the target under token {token}")
            world.target.newest = (token, 0)
            yield 100.0
            try:
                yield from world.checkpoint.release("rival", token)
            except CallError as e:
                world.tell("rival", f"cannot let go: {e}")
            return
        yield 60.0
