"""A pretend world for the engine: answers every command at once, from a script of how items behave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from anneal_contracts.canonical import digest, sha256_hex
from anneal_contracts.facts import (
    DeferredItemOutcome,
    FixSource,
    Health,
    ItemDetail,
    Mutability,
    Outcome,
    ScoreCounts,
    SkillPolicy,
    TargetAccess,
)
from anneal_contracts.work import (
    Acquired,
    Applied,
    Candidate,
    DeferredResolved,
    Discovered,
    Evaluated,
    GroupEvaluated,
    HealthChecked,
    Ladder,
    LookedAgain,
    Planned,
    Proposed,
    Recorded,
    Reflected,
    Released,
    Restored,
    Result,
    Snapshotted,
    Verified,
)
from anneal_core import chain
from anneal_core import events as ev
from anneal_core.decide import decide
from anneal_core.evolve import evolve
from anneal_core.gate import to_look_at
from anneal_core.ordering import to_plan
from anneal_core.state import Pending, RunState

WELL = Health(reachable=True, privileged=True)


def candidate(item_id: str, n: int = 0, **changes: Any) -> Candidate:
    script = f"fix {item_id} {n}"
    blob = sha256_hex(script.encode())
    base: dict[str, Any] = {
        "hash": digest("bash", script),
        "blob": blob,
        "source": FixSource.VENDOR if n == 0 else FixSource.CURATED,
        "kind": "bash",
        "title": f"fix {n} of {item_id}",
        "mutability": Mutability.REVERSIBLE,
    }
    return Candidate(**{**base, **changes})


def item(item_id: str, **changes: Any) -> ItemDetail:
    return ItemDetail(**{"id": item_id, "title": f"Rule {item_id}", **changes})


@dataclass
class World:
    """items: what discovery finds. ladders: id -> rungs. verdicts: (id, attempt) -> outcome, default pass."""

    items: list[ItemDetail]
    ladders: Mapping[str, list[Candidate]] = field(default_factory=dict)
    verdicts: Mapping[tuple[str, int], Outcome] = field(default_factory=dict)
    exits: Mapping[tuple[str, int], int] = field(default_factory=dict)
    worse: Mapping[tuple[str, int], str] = field(default_factory=dict)
    applied: Mapping[tuple[str, int], Applied] = field(default_factory=dict)
    proposals: list[Candidate | None] = field(default_factory=list)
    # Modes that the skill recognises: (id, attempt) -> name, and what the manifest says.
    modes: Mapping[tuple[str, int], str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    # (id, number of the look at a gate, from 1) -> what it finds there; number -> what got worse.
    gates: Mapping[tuple[str, int], Outcome] = field(default_factory=dict)
    worse_at_gates: Mapping[int, str] = field(default_factory=dict)
    resolutions: Mapping[str, DeferredItemOutcome] = field(default_factory=dict)
    # Item -> items that undid it in earlier runs, as memory tells.
    after_those: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    after: Mapping[str, Outcome] | None = None
    regressed: tuple[ItemDetail, ...] = ()
    became_applicable: tuple[ItemDetail, ...] = ()
    passing: tuple[str, ...] = ()
    inapplicable: tuple[str, ...] = ()
    # What a second look finds of the inapplicable.
    newly: tuple[ItemDetail, ...] = ()
    can_snapshot: bool = True
    model_may: str = "none"
    override: Callable[[RunState, Pending], Result | None] | None = None
    run_id: str = "run-1"
    now: float = 1_700_000_000.0
    state: RunState = field(default_factory=RunState)
    log: list[chain.Event] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def append(self, payload: ev.Payload, actor: str = "engine") -> None:
        event = chain.link(
            run_id=self.run_id,
            seq=self.state.seq + 1,
            at=self.now,
            type=payload.type,
            actor=actor,
            payload=payload.model_dump(mode="json"),
            prev_hash=self.state.head or chain.GENESIS,
        )
        self.state = evolve(self.state, event)
        self.log.append(event)

    def create(self, *, limits: ev.Limits | None = None, engine: int = ev.ENGINE, **spec: Any) -> None:
        wanted = ev.Spec(**{"skill": "sample", "target": "box", "profile": "p", **spec})
        policy = SkillPolicy(name="sample", version="1", **self.policy)
        created = ev.RunCreated(engine=engine, spec=wanted, limits=limits or ev.Limits(), policy=policy)
        self.append(created, actor="person")

    def fork(self, seq: int, /, **changes: Any) -> "World":
        """The same world with a run that goes on from an event of this one."""
        child = replace(self, run_id=f"{self.run_id}-at-{seq}", log=[], sent=[], override=None, state=RunState())
        for event in chain.renamed(self.log[:seq], child.run_id):
            child.state = evolve(child.state, event)
            child.log.append(event)
        kept = max(child.state.generation, min(self.state.generation, 0))
        facts = {"parent": self.run_id, "seq": seq, "hash": self.log[seq - 1].hash, "generation": kept, "by": "ann"}
        child.append(ev.RunForked(**{**facts, **changes}), actor="person:ann")
        return child

    def run(self, *, most: int = 5000) -> RunState:
        """Drives the run until it has ended; fails where it does not come to an end."""
        for _ in range(most):
            payloads = decide(self.state, self.now)
            for payload in payloads:
                self.append(payload)
            if payloads:
                continue
            if self.state.ended:
                return self.state
            self.answer_one()
        raise AssertionError(f"no end after {most} turns, phase {self.state.phase}")

    def answer_one(self) -> None:
        assert self.state.pending, "the engine waits for nothing"
        pending = next(iter(self.state.pending.values()))
        self.sent.append(pending.kind)
        self.now += 0.1
        result = self.override(self.state, pending) if self.override else None
        result = result or self._answer(pending)
        self.append(ev.CommandFinished(command_id=pending.command_id, result=result), actor="worker")

    def _answer(self, p: Pending) -> Result:
        cid, key = p.command_id, (p.item_id, p.attempt)
        match p.kind:
            case "acquire":
                access = TargetAccess(
                    name="box", driver="nspawn" if self.can_snapshot else "ssh", host="h", port=22, user="u",
                    key_path="/k", host_key="ssh-ed25519 A", can_snapshot=self.can_snapshot,
                )  # fmt: skip
                return Acquired(command_id=cid, fencing_token=7, access=access)
            case "snapshot":
                return Snapshotted(command_id=cid, generation=p.generation)
            case "discover":
                outcomes = {i.id: Outcome.FAIL for i in self.items} | self._untouched()
                score = ScoreCounts(passed=len(self.passing), fail=len(self.items))
                return Discovered(
                    command_id=cid,
                    items=tuple(self.items),
                    score=score,
                    outcomes=outcomes,
                    fingerprint="f",
                    health=WELL,
                )
            case "plan":
                ladders = tuple(
                    Ladder(item_id=i.id, candidates=tuple(self.ladders.get(i.id, [candidate(i.id)])))
                    for i in to_plan(self.state)
                )
                return Planned(command_id=cid, ladders=ladders, model_may=self.model_may, after=dict(self.after_those))
            case "propose":
                made = self.proposals.pop(0) if self.proposals else None
                return Proposed(command_id=cid, candidate=made, mode="" if made else "contract_violation")
            case "apply" | "undo":
                given = self.applied.get(key)
                if given is not None:
                    return given.model_copy(update={"command_id": cid})
                return Applied(command_id=cid, state="applied", exit_code=self.exits.get(key, 0))
            case "evaluate":
                return self._judged(cid, p.item_id)
            case "evaluate_group":
                return GroupEvaluated(command_id=cid, items={i: self._judged(cid, i) for i in self.state.group})
            case "look_again":
                return LookedAgain(command_id=cid, items=self.newly)
            case "gate":
                found = {i: self._at_the_gate(cid, i) for i in to_look_at(self.state)}
                return GroupEvaluated(command_id=cid, items=found)
            case "resolve_deferred":
                waiting = [i for i in self.state.items.values() if i.state is ev.ItemStateName.DEFERRED]
                ids = [i.detail.id for i in waiting if i.attempts[-1].mode == p.mode]
                held = {i: DeferredItemOutcome(item_id=i, state="completed", reason="in effect") for i in ids}
                return DeferredResolved(command_id=cid, outcomes=tuple(self.resolutions.get(i, held[i]) for i in ids))
            case "restore" | "rewind":
                return Restored(command_id=cid, restored=True)
            case "check_health":
                return HealthChecked(command_id=cid, health=WELL)
            case "reflect":
                return Reflected(command_id=cid, words="it failed", model="small")
            case "verify":
                return self._scanned(cid)
            case "record":
                return Recorded(command_id=cid)
        return Released(command_id=cid)

    def _scanned(self, command_id: str) -> Verified:
        done = {i.detail.id: i.state == ev.ItemStateName.COMPLETED for i in self.state.items.values()}
        fresh = {i: Outcome.PASS if ok else Outcome.FAIL for i, ok in done.items()}
        outcomes = {**self._untouched(), **(self.after or {}), **fresh}
        return Verified(
            command_id=command_id,
            score=ScoreCounts(),
            outcomes=outcomes,
            health=WELL,
            regressed=self.regressed,
            became_applicable=self.became_applicable,
        )

    def _at_the_gate(self, command_id: str, item_id: str) -> Evaluated:
        key = (item_id, self.sent.count("gate"))
        worse = (self.worse_at_gates[key[1]],) if key[1] in self.worse_at_gates else ()
        outcome = self.gates.get(key, Outcome.PASS)
        return Evaluated(command_id=command_id, outcome=outcome, health=WELL, worse=worse)

    def _judged(self, command_id: str, item_id: str) -> Evaluated:
        key = (item_id, self.state.items[item_id].attempts[-1].number)
        worse = (self.worse[key],) if key in self.worse else ()
        outcome = self.verdicts.get(key, Outcome.PASS)
        mode = self.modes.get(key, "")
        return Evaluated(command_id=command_id, outcome=outcome, health=WELL, worse=worse, skill_mode=mode)

    def _untouched(self) -> dict[str, Outcome]:
        """What a scan says of the rules that nobody has worked on."""
        inapplicable = dict.fromkeys(self.inapplicable, Outcome.NOT_APPLICABLE)
        return {**dict.fromkeys(self.passing, Outcome.PASS), **inapplicable}
