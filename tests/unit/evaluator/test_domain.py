"""What the evaluator makes of a look at the machine: what outranks what, and when there is no verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from anneal_contracts.canonical import sha256_hex
from anneal_contracts.facts import Health, ItemDetail, Outcome, ScoreCounts
from anneal_contracts.work import CheckHealth, Discover, Evaluate, EvaluateGroup, Verify
from anneal_evaluator.domain import Evaluations, worse
from anneal_runtime.errors import FailedPrecondition, TargetUnreachable, Unavailable
from anneal_skillkit.interfaces import Discovery, FullScan, Judgement

WELL = Health(reachable=True, privileged=True, failed_units=("auditd.service",), dead_services=("mail",))
COMMON: dict[str, Any] = {"command_id": "c", "run_id": "r", "skill": "s", "target": "t", "deadline": 0.0}


def health(**changes: Any) -> Health:
    return WELL.model_copy(update=changes)


def item(item_id: str) -> ItemDetail:
    return ItemDetail(id=item_id, title=item_id)


class Broken(Exception):
    """A defect in a skill."""


@dataclass
class Machine:
    """A bench, a session and a skill in one: what is found on the machine, or the error that looking at it raises."""

    now: Health | Exception = WELL
    verdicts: Mapping[str, Judgement | Exception] = field(default_factory=dict)
    context_error: Exception | None = None
    canary_error: Exception | None = None
    scan: FullScan | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    described: list[list[str]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)
    looked: int = 0
    # The machine has another address than the one that is known.
    stale: bool = False
    asked: list[str] = field(default_factory=list)
    # What was lost is the old session alone.
    only_the_session: bool = False

    # --- the bench --------------------------------------------------------------------------------------------------

    async def context(self, command: Any, *, known: bool = False) -> Any:
        self.asked.append("where it was" if known else "where it is")
        if self.stale and not known:
            self.canary_error = None
        if self.context_error:
            raise self.context_error
        return SimpleNamespace(session=self)

    async def moved(self, command: Any) -> bool:
        return self.stale

    async def drop_session(self, target: str) -> None:
        self.asked.append("dropped")
        if self.only_the_session:
            self.verdicts = {}

    def skill(self, name: str) -> Any:
        evaluator = SimpleNamespace(evaluate=self._evaluate, health=self._health, verify=self._verify)
        queue = SimpleNamespace(discover=self._discover, describe=self._describe)
        return SimpleNamespace(runtime=SimpleNamespace(evaluator=evaluator, work_queue=queue))

    async def put_blob(self, content: bytes, media_type: str) -> str:
        sha = sha256_hex(content)
        self.blobs[sha] = content
        return sha

    # --- the session ------------------------------------------------------------------------------------------------

    async def fresh(self) -> "Machine":
        if self.canary_error:
            raise self.canary_error
        self.canaries.append("opened")
        return self

    async def close(self) -> None:
        self.canaries.append("closed")

    # --- the skill --------------------------------------------------------------------------------------------------

    async def _health(self, ctx: Any, canary: Any) -> Health:
        self.looked += 1
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    async def _evaluate(self, ctx: Any, item_id: str) -> Judgement:
        found = self.verdicts.get(item_id, Judgement(outcome=Outcome.PASS))
        if isinstance(found, Exception):
            raise found
        return found

    async def _verify(self, ctx: Any) -> FullScan:
        assert self.scan is not None
        return self.scan

    async def _discover(self, ctx: Any, item_ids: Sequence[str]) -> Discovery:
        return Discovery(
            items=(item("a"),),
            score=ScoreCounts(fail=1),
            outcomes={"a": Outcome.FAIL},
            fingerprint="f",
            artifacts=self.artifacts,
            notes=("a note",),
        )

    async def _describe(self, ctx: Any, item_ids: Sequence[str]) -> list[ItemDetail]:
        self.described.append(list(item_ids))
        return [item(i) for i in item_ids]


async def evaluated(machine: Machine, before: Health = WELL) -> Any:
    command = Evaluate(**COMMON, item_id="a", attempt=1, health_before=before)
    return await Evaluations(machine).evaluate(command)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (health(), ()),
        (health(detail="slow"), ()),
        (health(failed_units=()), ()),
        (health(dead_services=()), ()),
        (health(privileged=False), ("sudo no longer works",)),
        (health(failed_units=("auditd.service", "b.service", "a.service")),
         ("unit a.service is newly failed", "unit b.service is newly failed")),
        (health(failed_units=("a.service",)), ("unit a.service is newly failed",)),
        (health(dead_services=("mail", "web")), ("service web no longer answers",)),
        (health(reachable=False), ("a new session cannot be opened",)),
        (health(reachable=False, detail="refused"), ("a new session cannot be opened: refused",)),
        # What cannot be reached was not looked at: nothing else may be said of it.
        (health(reachable=False, privileged=False, failed_units=("x",)), ("a new session cannot be opened",)),
    ],
)  # fmt: skip
def test_only_what_got_worse_is_held_against_a_fix(now: Health, words: tuple[str, ...]) -> None:
    assert worse(WELL, now) == words


def test_a_login_that_never_had_sudo_lost_nothing() -> None:
    assert worse(health(privileged=False), health(privileged=False)) == ()


async def test_a_verdict_comes_with_the_health_beside_it() -> None:
    found = await evaluated(
        Machine(verdicts={"a": Judgement(outcome=Outcome.FAIL, evidence="found no", mode="needs_reboot")})
    )
    assert (found.outcome, found.evidence, found.skill_mode) == (Outcome.FAIL, "found no", "needs_reboot")
    assert found.worse == ()
    assert set(found.parts) == {"health", "verdict"}


@pytest.mark.parametrize(
    "verdict",
    [Judgement(outcome=Outcome.PASS), Judgement(outcome=Outcome.FAIL), TargetUnreachable("gone"), Broken()],
    ids=["pass", "fail", "target lost", "defect"],
)
async def test_a_machine_that_got_worse_has_no_verdict_whatever_the_check_says(verdict: Judgement | Exception) -> None:
    sick = health(failed_units=("sshd.service",), detail="1 unit failed")
    found = await evaluated(Machine(now=sick, verdicts={"a": verdict}))
    assert found.outcome is Outcome.OTHER
    assert found.worse == ("unit sshd.service is newly failed",)
    assert found.evidence == "1 unit failed"
    assert found.health.failed_units == ("sshd.service",)


LOST: list[tuple[str, Callable[[], Machine]]] = [
    ("no session at all", lambda: Machine(context_error=TargetUnreachable("gone"))),
    ("no new session", lambda: Machine(canary_error=TargetUnreachable("gone"))),
    ("lost while the check ran", lambda: Machine(verdicts={"a": TargetUnreachable("gone")})),
]


@pytest.mark.parametrize("make", [make for _, make in LOST], ids=[name for name, _ in LOST])
async def test_a_lost_target_is_an_answer_and_counts_as_worse(make: Callable[[], Machine]) -> None:
    found = await evaluated(make())
    assert found.outcome is Outcome.OTHER
    assert not found.health.reachable
    assert found.worse == ("a new session cannot be opened: gone",)
    assert found.evidence == "gone"


async def test_a_session_that_died_beside_a_new_one_that_works_is_no_lost_target() -> None:
    machine = Machine(verdicts={"a": TargetUnreachable("connection reset")}, only_the_session=True)
    found = await evaluated(machine)
    assert (found.outcome, found.worse) == (Outcome.PASS, ())
    assert machine.asked == ["where it was", "dropped", "where it was"]


async def test_a_canary_that_is_refused_by_whatever_error_is_a_machine_that_cannot_be_reached() -> None:
    found = await evaluated(Machine(canary_error=FailedPrecondition("the login was refused")))
    assert found.worse == ("a new session cannot be opened: the login was refused",)


@pytest.mark.parametrize("error", [Broken("defect"), Unavailable("busy")])
async def test_a_check_that_breaks_is_no_verdict_and_no_reason_to_take_a_fix_back(error: Exception) -> None:
    with pytest.raises(type(error)):
        await evaluated(Machine(verdicts={"a": error}))


async def test_a_health_check_that_breaks_lets_no_verdict_through() -> None:
    machine = Machine(now=Broken("defect"), verdicts={"a": Judgement(outcome=Outcome.PASS)})
    with pytest.raises(Broken):
        await evaluated(machine)
    assert machine.canaries == ["opened", "closed"]


async def test_a_context_that_fails_otherwise_is_an_error_to_be_told() -> None:
    with pytest.raises(FailedPrecondition):
        await evaluated(Machine(context_error=FailedPrecondition("host key changed")))


async def test_a_group_is_looked_at_once_and_each_item_has_its_own_verdict() -> None:
    machine = Machine(verdicts={"b": Judgement(outcome=Outcome.FAIL)})
    command = EvaluateGroup(**COMMON, item_ids=("a", "b"), health_before=WELL)
    found: Any = await Evaluations(machine).evaluate_group(command)  # type: ignore[arg-type]
    assert {i: e.outcome for i, e in found.items.items()} == {"a": Outcome.PASS, "b": Outcome.FAIL}
    assert machine.looked == 1


async def test_a_group_on_a_machine_that_got_worse_has_no_verdict_at_all() -> None:
    machine = Machine(now=health(privileged=False))
    command = EvaluateGroup(**COMMON, item_ids=("a", "b"), health_before=WELL)
    found: Any = await Evaluations(machine).evaluate_group(command)  # type: ignore[arg-type]
    assert {e.outcome for e in found.items.values()} == {Outcome.OTHER}
    assert all(e.worse == ("sudo no longer works",) for e in found.items.values())


async def test_the_re_scan_describes_what_regressed_and_what_became_applicable_if_it_fails_now() -> None:
    outcomes = {
        "was-good": Outcome.PASS, "lost": Outcome.FAIL, "unsure": Outcome.ERROR,
        "new": Outcome.FAIL, "new-good": Outcome.PASS, "still-not": Outcome.NOT_APPLICABLE, "item": Outcome.FAIL,
    }  # fmt: skip
    machine = Machine(scan=FullScan(score=ScoreCounts(fail=3), outcomes=outcomes, artifacts={"arf_after": b"<arf/>"}))
    command = Verify(
        **COMMON,
        passed_before=("lost", "unsure", "was-good", "vanished"),
        inapplicable_before=("new", "new-good", "still-not"),
    )
    found: Any = await Evaluations(machine).verify(command)  # type: ignore[arg-type]
    assert [d.id for d in found.regressed] == ["lost", "unsure"]
    assert [d.id for d in found.became_applicable] == ["new"]
    assert found.outcomes == outcomes
    assert machine.blobs[found.artifacts["arf_after"]] == b"<arf/>"


async def test_a_re_scan_without_regressions_describes_nothing() -> None:
    machine = Machine(scan=FullScan(score=ScoreCounts(passed=1), outcomes={"a": Outcome.PASS}))
    found: Any = await Evaluations(machine).verify(Verify(**COMMON, passed_before=("a",)))  # type: ignore[arg-type]
    assert (found.regressed, found.became_applicable, machine.described) == ((), (), [])


async def test_discovery_keeps_its_artifacts_as_blobs_and_looks_at_health() -> None:
    machine = Machine(artifacts={"arf_before": b"<arf/>", "notes": b"n"})
    found: Any = await Evaluations(machine).discover(Discover(**COMMON))  # type: ignore[arg-type]
    assert {name: machine.blobs[sha] for name, sha in found.artifacts.items()} == machine.artifacts
    assert found.health.failed_units == WELL.failed_units
    assert [d.id for d in found.items] == ["a"]
    assert found.notes == ("a note",)


async def test_health_alone_is_told_of_a_machine_that_does_not_answer() -> None:
    machine = Machine(canary_error=TargetUnreachable("still booting"))
    found: Any = await Evaluations(machine).check_health(CheckHealth(**COMMON))  # type: ignore[arg-type]
    assert (found.health.reachable, found.health.detail) == (False, "still booting")


async def test_the_canary_is_a_session_of_its_own_and_is_closed() -> None:
    machine = Machine()
    await evaluated(machine)
    assert machine.canaries == ["opened", "closed"]


async def test_a_machine_that_is_not_where_it_was_is_looked_at_where_it_is() -> None:
    machine = Machine(canary_error=TargetUnreachable("no route"), stale=True)
    found = await evaluated(machine)
    assert (found.worse, found.outcome) == ((), Outcome.PASS)
    assert machine.asked == ["where it was", "where it is"]


async def test_a_machine_that_answers_where_it_was_is_not_asked_for_again() -> None:
    machine = Machine()
    await evaluated(machine)
    assert machine.asked == ["where it was"]
