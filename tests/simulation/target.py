"""The simulated target: files that last, a running state that a boot clears, markers of effects, and what it suffers.

Whatever is done to it is told to the witness at the moment it happens.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anneal_contracts.facts import Health, Outcome

from tests.simulation.kernel import Signal
from tests.simulation.scenario import BYSTANDERS, Script

if TYPE_CHECKING:
    from tests.simulation.world import World

BOOT_S = 2.0


class Unreachable(Exception):
    """No session can be opened now."""


class Fenced(Exception):
    """The target will not start this: the leave for it has ended, or a newer command was here."""


class Busy(Exception):
    """Another script has been at work for too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """The ledger's leave for one change, as the target checks it: for this boot, until then, and never behind a newer.

    undo: content that the target runs by itself guard_s after the end, unless a new session shows that it answers.
    """

    key: str
    seq: int
    token: int
    boot: int
    until: float
    command_id: str
    item_id: str
    attempt: int
    action_hash: str
    # Key of the effect that this one takes back; empty: none.
    undoes: str = ""
    undo: str = ""
    guard_s: float = 0.0


@dataclass(slots=True)
class Marker:
    """What the wrapper leaves on the target under an effect's key. boot: when it started."""

    boot: int
    finished: bool = False
    exit_code: int = 0
    timed_out: bool = False
    # The dead-man timer: armed, settled (word came in time), or reverted (it took the change back).
    timer: str = ""


@dataclass(slots=True)
class Running:
    """A script at work."""

    permit: Permit
    script: Script
    marker: Marker
    ended: Signal
    ends_at: float
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """A generation: everything that lasts."""

    files: dict[str, str]
    markers: dict[str, Marker]
    backups: dict[str, dict[str, str]]
    ran: frozenset[str]


@dataclass
class Target:
    """One machine. in_hand: what is being done to it from outside; nothing may run meanwhile."""

    world: "World"
    files: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    markers: dict[str, Marker] = field(default_factory=dict)
    backups: dict[str, dict[str, str]] = field(default_factory=dict)
    # Changes that ran and still show: what a restore takes back is gone from here.
    ran: set[str] = field(default_factory=set)
    # The newest token and command that were here since the boot.
    newest: tuple[int, int] = (0, 0)
    boot: int = 1
    in_hand: str = ""
    down_until: float = 0.0
    running: list[Running] = field(default_factory=list)

    # --- reach and health ------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Raises Unreachable."""
        if self.in_hand == "restore" or self.down_until > self.world.kernel.now or "sshd" in self.files:
            raise Unreachable("no route to host" if "sshd" not in self.files else "connection refused")

    def health(self) -> Health:
        """How it looks through a session opened just now."""
        try:
            self.connect()
        except Unreachable as e:
            return Health(reachable=False, detail=str(e))
        failed = ("x.service",) if "unit" in self.files else ()
        return Health(reachable=True, privileged="sudo" not in self.files, failed_units=failed)

    def verdict(self, rule: str) -> Outcome:
        """What an honest check says of a rule."""
        value = self.live.get(rule, self.files.get(rule, ""))
        if value.startswith("good") or (value.startswith("pending") and value != f"pending {self.boot}"):
            return Outcome.PASS
        untouched = {"passing": Outcome.PASS, "inapplicable": Outcome.NOT_APPLICABLE}
        return Outcome.FAIL if value else untouched.get(rule, Outcome.FAIL)

    # --- effects ---------------------------------------------------------------------------------------------------

    def there(self, key: str) -> Running | Marker | None:
        """What is there under a key: a script at work, what it left, or nothing."""
        if not self.world.rules.markers_are_read:
            return None
        return next((r for r in self.running if r.permit.key == key), self.markers.get(key))

    def start(self, permit: Permit, script: Script, timeout_s: float) -> Running | Marker:
        """Starts the script under its key, or gives what is there already. Raises Unreachable, Fenced."""
        self.connect()
        if (found := self.there(permit.key)) is not None:
            return found
        self._fence(permit)
        self.world.witness.effect_starts(permit)
        self.disarm(permit.undoes)
        kernel = self.world.kernel
        marker = self.markers[permit.key] = Marker(boot=self.boot, timer="armed" if permit.undo else "")
        self.ran.add(self.world.witness.identity(permit))
        seconds = timeout_s if script.defect == "never ends" else script.seconds
        run = Running(permit, script, marker, Signal(), kernel.now + seconds)
        self.running.append(run)
        if not script.takes_back:
            self.backups[script.content] = {k: self.files[k] for k in script.touches if k in self.files}
        kernel.call_at(kernel.now + seconds / 2, lambda: self._half_way(run))
        kernel.call_at(run.ends_at, lambda: self._end(run))
        if permit.undo:
            kernel.call_at(run.ends_at + permit.guard_s, lambda: self._time_is_up(permit))
        return run

    def _fence(self, permit: Permit) -> None:
        rules, mine = self.world.rules, (permit.token, permit.seq)
        if rules.permits_end and permit.boot != self.boot:
            raise Fenced("the target was booted since this was asked for")
        if rules.permits_end and permit.until < self.world.kernel.now:
            raise Fenced("the leave has run out")
        if rules.old_commands_are_refused and mine < self.newest:
            raise Fenced(f"{mine} comes after {self.newest}")
        self.newest = max(self.newest, mine)

    def disarm(self, key: str) -> bool:
        """Word that a new session works; true where the timer was faster."""
        marker = self.markers.get(key)
        if marker is None or not marker.timer:
            return False
        if marker.timer == "armed":
            marker.timer = "settled"
        return marker.timer == "reverted"

    def _time_is_up(self, permit: Permit) -> None:
        """The dead-man timer: nobody has shown that the target answers."""
        marker = self.markers.get(permit.key)
        if marker is None or marker.timer != "armed":
            return
        self.world.tell("target", f"takes {permit.item_id}/{permit.attempt} back by itself")
        self.world.witness.timer_fires(permit)
        for run in [r for r in self.running if r.permit.key == permit.key]:
            self._cut_off(run)
        marker.timer = "reverted"
        marker.exit_code = self._take_back(self.world.scenario.scripts[permit.undo])

    def _half_way(self, run: Running) -> None:
        if not run.cut_off and run.script.defect not in ("does nothing", "does nothing and says so"):
            self.files[f"{run.script.item_id}.half"] = run.script.content

    def _end(self, run: Running) -> None:
        if run.cut_off:
            return
        self.world.witness.effect_ends(run.permit)
        self.running.remove(run)
        script, marker = run.script, run.marker
        marker.finished = True
        marker.timed_out = script.defect == "never ends"
        marker.exit_code = 124 if marker.timed_out else self._carry_out(script)
        self.world.kernel.fire(run.ended)

    def _carry_out(self, script: Script) -> int:
        """What the script does by its end; gives its exit code."""
        if script.defect != "fails half-way":
            self.files.pop(f"{script.item_id}.half", None)
        if script.takes_back:
            return self._take_back(script)
        item_id, defect = script.item_id, script.defect
        if defect in ("does nothing", "does nothing and says so"):
            return int(defect != "does nothing")
        if defect == "fails half-way":
            return 1
        if defect == "leaves traces and mends nothing":
            self.files[f"{item_id}.trace"] = script.content
            return 0
        lasting = self.live if defect == "holds until the next boot" else self.files
        lasting[item_id] = (
            f"pending {self.boot}" if defect == "needs a reboot to count" else f"good by {script.content}"
        )
        broken = {
            "cuts the reach": "sshd",
            "takes sudo away": "sudo",
            "breaks a unit": "unit",
            "breaks the rule that passed": BYSTANDERS[0],
            "makes the other rule apply": BYSTANDERS[1],
        }.get(defect)
        if broken:
            self.files[broken] = "broken"
        return int(defect == "mends and reports noise")

    def _take_back(self, script: Script) -> int:
        before = self.backups.get(script.takes_back)
        if script.defect == "does not work":
            return 1
        if before is not None:
            for name in script.touches:
                self.live.pop(name, None)
                if name in before:
                    self.files[name] = before[name]
                else:
                    self.files.pop(name, None)
        return 0

    # --- what comes from outside -----------------------------------------------------------------------------------

    def cut_power(self) -> None:
        """Everything that runs ends where it is; the running state is gone."""
        for run in list(self.running):
            self._cut_off(run)
        self.live.clear()
        self.boot += 1
        self.newest = (0, 0)

    def _cut_off(self, run: Running) -> None:
        run.cut_off = True
        self.running.remove(run)
        self.world.kernel.fire(run.ended)

    def reboot(self) -> None:
        """A restart that nobody asked for."""
        self.cut_power()
        self.down_until = max(self.down_until, self.world.kernel.now + BOOT_S)

    def save(self) -> Saved:
        """The generation that this state would make."""
        return Saved(dict(self.files), _copies(self.markers), dict(self.backups), frozenset(self.ran))

    def put_back(self, saved: Saved) -> None:
        """Becomes what was saved, and boots."""
        self.files = dict(saved.files)
        self.markers = _copies(saved.markers)
        self.backups = dict(saved.backups)
        self.ran = set(saved.ran)
        self.down_until = self.world.kernel.now


def _copies(markers: dict[str, Marker]) -> dict[str, Marker]:
    return {key: Marker(m.boot, m.finished, m.exit_code, m.timed_out, m.timer) for key, m in markers.items()}
