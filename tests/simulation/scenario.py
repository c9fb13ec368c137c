"""What a seed gives a run: items, their scripts and what these really do, bounds, a target, and when people step in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anneal_contracts.base import Candidate
from anneal_contracts.canonical import digest, sha256_hex
from anneal_contracts.facts import (
    DeclaredMode,
    FixSource,
    ItemDetail,
    Mutability,
    OrderRule,
    SkillPolicy,
)
from anneal_core.events import Limits, Spec
from anneal_core.limits import ItemLimits, RoleLimits

from tests.simulation.chance import Chance

# Rules that nobody asked to mend: one passes before the run, the other does not apply.
BYSTANDERS = ("passing", "inapplicable")

# The skill's own modes, one for each response.
MODES = (
    DeclaredMode(name="needs_reboot", response="defer"),
    DeclaredMode(name="good_enough", response="keep"),
    DeclaredMode(name="conflict", response="retry"),
    DeclaredMode(name="hopeless", response="escalate"),
    DeclaredMode(name="wrong_here", response="ban"),
    DeclaredMode(name="side_effect", response="revert"),
)

_SIZES = ((0.28, 1), (0.56, 2), (0.78, 3), (0.9, 4), (0.96, 5), (1.0, 6))

# What may be wrong with a script, and how often.
_DEFECTS = (
    ("does nothing", 0.06),
    ("does nothing and says so", 0.06),
    ("leaves traces and mends nothing", 0.05),
    ("fails half-way", 0.04),
    ("cuts the reach", 0.03),
    ("takes sudo away", 0.02),
    ("breaks a unit", 0.03),
    ("breaks the rule that passed", 0.04),
    ("makes the other rule apply", 0.04),
    ("holds until the next boot", 0.04),
    ("mends and reports noise", 0.04),
    ("never ends", 0.03),
    ("is slow", 0.05),
    ("needs a reboot to count", 0.03),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """What running some content does to the target, as nobody but the target knows."""

    item_id: str
    content: str
    seconds: float
    defect: str = ""
    # The content that this one takes back; empty: it mends.
    takes_back: str = ""

    @property
    def touches(self) -> tuple[str, ...]:
        """Names of all files that it may write."""
        return (self.item_id, f"{self.item_id}.half", f"{self.item_id}.trace", "sshd", "sudo", "unit", *BYSTANDERS)


@dataclass
class Scenario:
    """A run before it starts. without: items that are left out to make a story smaller."""

    chance: Chance
    without: frozenset[str] = frozenset()
    items: tuple[ItemDetail, ...] = ()
    ladders: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)
    rungs: dict[str, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        c = self.chance
        self.can_snapshot = c.draw("target can snapshot") < 0.75
        size = next(n for up_to, n in _SIZES if c.draw("number of items") < up_to)
        ids = [f"i{n}" for n in range(1, size + 1) if f"i{n}" not in self.without]
        self.items = tuple(self._item(i) for i in ids)
        self.ladders = {i: tuple(self._rungs(i)) for i in (*ids, *BYSTANDERS)}
        self.model_may = "author" if c.draw("model may author") < 0.45 else "none"

    def _item(self, item_id: str) -> ItemDetail:
        c = self.chance
        others = tuple(f"i{n}" for n in range(1, int(item_id[1:])) if f"i{n}" not in self.without)
        # Depending on an earlier one makes no circle; depending on itself or on nobody is a mistake of the skill's.
        needs = (c.pick(f"{item_id} needs", others),) if others and c.draw(f"{item_id} waits") < 0.25 else ()
        wrong = c.draw(f"{item_id} is wrong about what it needs")
        needs = (item_id,) if wrong < 0.004 else ("nobody",) if wrong < 0.008 else needs
        return ItemDetail(
            id=item_id,
            title=f"Rule {item_id}",
            priority=int(c.draw(f"{item_id} priority") * 2),
            missing_input="a file system of its own" if c.draw(f"{item_id} wants input") < 0.03 else "",
            depends_on=needs,
            resources=(c.pick(f"{item_id} resource", ("file:/etc/a", "unit:x")),),
        )

    def _rungs(self, item_id: str) -> list[Candidate]:
        c = self.chance
        count = int(c.draw(f"{item_id} rungs") * 3.6)
        first = 0 if c.draw(f"{item_id} recalled") < 0.5 else 1
        sources = (FixSource.RECALLED, FixSource.VENDOR, FixSource.CURATED, FixSource.CURATED)
        return [self.rung(item_id, f"{item_id} rung {n}", sources[first + n - 1]) for n in range(1, count + 1)]

    def rung(self, item_id: str, name: str, source: FixSource, *, spoilt: str = "") -> Candidate:
        """A candidate with its script and its undo, known under their blobs from now on; the same one for a name."""
        name = {"wants to stop sshd": f"{name}, stopping sshd", "wants to delete data": f"{name}, deleting data"}.get(
            spoilt, name
        )
        if name not in self.rungs:
            made = self._rung(item_id, name, source)
            if spoilt == "wants to stop sshd":
                made = made.model_copy(update={"allowed": False, "policy": "stops sshd"})
            elif spoilt == "wants to delete data":
                made = made.model_copy(update={"mutability": Mutability.DESTRUCTIVE})
            self.rungs[name] = made
        return self.rungs[name]

    def _rung(self, item_id: str, name: str, source: FixSource) -> Candidate:
        c, content = self.chance, f"fix {name}"
        undo = "" if c.draw(f"{name} has no undo") < 0.12 else f"undo {name}"
        self._script(item_id, content, "")
        if undo:
            self._script(item_id, undo, content)
        lot = c.draw(f"{name} gate")
        return Candidate(
            hash=digest("bash", content),
            blob=self._blob(content),
            undo_blob=self._blob(undo) if undo else "",
            source=source,
            kind="bash",
            title=f"the {source} fix of {item_id}",
            mutability=Mutability.DESTRUCTIVE if 0.03 < lot < 0.08 else Mutability.REVERSIBLE,
            allowed=lot >= 0.03,
            policy="" if lot >= 0.03 else "stops sshd",
            banned="failed in another run" if 0.08 < lot < 0.1 else "",
            risks_reach=c.draw(f"{name} risks reach") < 0.1,
            timeout_s=30.0,
        )

    def _script(self, item_id: str, content: str, takes_back: str) -> None:
        c = self.chance
        if takes_back:
            faults: tuple[tuple[str, float], ...] = (("does not work", 0.04), ("never ends", 0.02))
        else:
            faults = _DEFECTS
        found = c.one_of("script", f"script {content!r}", faults)
        defect = found.rpartition(": ")[2]
        seconds = 25.0 if defect == "is slow" else c.between(f"{content} seconds", 0.2, 4.0)
        self.scripts[content] = Script(
            item_id=item_id, content=content, seconds=seconds, defect=defect, takes_back=takes_back
        )

    def _blob(self, content: str) -> str:
        name = sha256_hex(content.encode())
        self.blobs[name] = content
        return name

    def limits(self) -> Limits:
        """The run's bounds: often tight, so that they are met."""
        c = self.chance
        return Limits(
            time_budget_s=c.pick("time budget", (40.0, 200.0, 600.0, 1800.0, 1800.0)),
            max_attempts=c.pick("max attempts", (1, 2, 3, 3, 4)),
            max_steps=c.pick("max steps", (5, 8, 12, 20, 40, 5000, 5000, 5000)),
            max_gaps=c.pick("max gaps", (1, 2, 3)),
            max_reflections=c.pick("max reflections", (0, 1, 4)),
            repair_rounds=c.pick("repair rounds", (0, 1, 1, 2)),
            command_tries=c.pick("command tries", (1, 2, 3, 3, 3)),
            max_group=c.pick("max group", (1, 1, 2, 16)),
            gate_rounds=c.pick("gate rounds", (0, 1, 3)),
            approval_ttl_s=c.pick("approval ttl", (60.0, 600.0)),
            item=ItemLimits(
                time_s=c.pick("item time", (0.0, 0.0, 60.0, 600.0)),
                time_factor=c.pick("item time factor", (0.0, 3.0)),
                time_floor_s=20.0,
                steps=c.pick("item steps", (0, 0, 4, 12)),
                tokens=c.pick("item tokens", (0, 0, 300, 2000)),
            ),
            roles=RoleLimits(
                probes=c.pick("probes", (0, 2, 5)),
                probes_now=c.pick("probes at once", (1, 2)),
                lessons=c.pick("lessons", (0, 1, 3)),
                choices=c.pick("choices", (0, 0, 2, 9)),
                engagements=c.pick("engagements", (0, 1, 4)),
                review_failures=c.pick("failures before a review", (1, 2)),
                review_gaps=c.pick("gaps before a review", (1, 2)),
            ),
        )

    def spec(self) -> Spec:
        """What was asked for."""
        c = self.chance
        excluded = {i.id: "a risk that was accepted" for i in self.items if c.draw(f"{i.id} excluded") < 0.06}
        limit = 1 + int(c.draw("how many") * 3) if c.draw("asked for few") < 0.08 else 0
        return Spec(
            skill="sample",
            target="box",
            profile="p",
            exclusions=excluded,
            limit=limit,
            dry_run=c.draw("dry run") < 0.03,
        )

    def policy(self) -> SkillPolicy:
        """The skill, its modes, and an order that it wants."""
        last = (OrderRule(items=("i1",), behind=("i*",), share=0.6, why="i1 goes late"),)
        rules = last if self.chance.draw("order rule") < 0.15 else ()
        return SkillPolicy(
            name="sample",
            version="1",
            modes=MODES,
            order_rules=rules,
            discover_timeout_s=60.0,
            evaluate_timeout_s=20.0,
            verify_timeout_s=60.0,
        )
