"""The gate: may this action run at all? Every script passes it, the vendor's as well as the model's.

It denies what it knows: what blinds the checker, cuts our reach, destroys data, erases the trail, fetches or hides
code, opens a door, or does nothing at all. From an author who is not trusted (a model, or memory of one) it also denies
what it cannot read. Rules are data (policy_rules.yaml), each with an id and an explanation for people. It is a net for
known harm and not a sandbox: snapshots, the canary and the evaluator stand behind it.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final, Literal

import yaml
from anneal_contracts.facts import Action, FixSource, Mutability
from anneal_runtime.errors import InvalidArgument
from pydantic import BaseModel, ConfigDict

from anneal_skillkit.ansible_run import tasks_of
from anneal_skillkit.interpreters import unreadable_code
from anneal_skillkit.paths import meant
from anneal_skillkit.shell import Command, Reading, Write, read_script
from anneal_skillkit.written import How

_RULES: Final = files("anneal_skillkit").joinpath("policy_rules.yaml")
# The skill's own content may reboot where it says so; nobody else may.
_TRUSTED: Final = frozenset({FixSource.VENDOR, FixSource.CURATED})
_IDLE: Final = frozenset(
    {"", ":", "true", "false", "exit", "return", "echo", "printf", "set", "sleep", "test", "[", "cd"}
)
_READ_ONLY: Final = _IDLE | frozenset(
    """cat grep egrep fgrep ls stat find awk head tail cut sort uniq wc id getent rpm findmnt df du ps ss ip uname
    sysctl auditctl systemctl readlink realpath basename dirname tr sed""".split()  # noqa: SIM905
)
_MAY_WRITE: Final = re.compile(
    r"-\w*i|-w|--write|enable|disable|start|stop|restart|mask|set|add|del|flush|\b(up|down)\b|=|-[eiUFVDRAKo]\b|-exec|-ok|-delete|-fprint|-fls|--output"
)
_LOOKING_UNITS: Final = re.compile(r"^(-\S+\s+)*(is-\S+|status|show|list-\S+|cat)\b")


@dataclass(frozen=True, kw_only=True)
class PolicyDecision:
    """allowed, and why not; rule and explanation are empty when it is."""

    allowed: bool
    mutability: Mutability
    rule: str = ""
    explanation: str = ""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Piped(_Closed):
    """Programs on the left and on the right of a pipe; `from` is a word of Python."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=lambda name: name.rstrip("_"))

    from_: tuple[str, ...]
    to: tuple[str, ...]


class Pattern(_Closed):
    """One way to match; see the head of policy_rules.yaml."""

    commands: tuple[str, ...] = ()
    args: str = ""
    unless: str = ""
    writes: str = ""
    how: tuple[How, ...] = ()
    piped: Piped | None = None
    text: str = ""
    special: Literal["", "fork_bomb", "unreadable_code"] = ""
    looped_in_background: bool = False
    sources: tuple[FixSource, ...] = tuple(FixSource)

    @cached_property
    def _exact(self) -> frozenset[str]:
        return frozenset(name for name in self.commands if not set(name) & set("*?["))

    @cached_property
    def _globs(self) -> tuple[str, ...]:
        return tuple(name for name in self.commands if name not in self._exact)

    def named(self, programs: frozenset[str]) -> frozenset[str]:
        """Which of these programs are the pattern's."""
        found = self._exact & programs
        if not self._globs:
            return found
        return found | {name for name in programs if any(fnmatch.fnmatchcase(name, glob) for glob in self._globs)}


class Rule(_Closed):
    """A rule of the policy."""

    id: str
    explanation: str
    # Paths, divided by blanks, that a glob may not take in.
    protects: str = ""
    match: tuple[Pattern, ...]


@cache
def rules() -> tuple[Rule, ...]:
    """The policy's rules in their order."""
    return tuple(Rule.model_validate(row) for row in yaml.safe_load(_RULES.read_text(encoding="utf-8")))


@cache
def _protected() -> tuple[str, ...]:
    return tuple(path for rule in rules() for path in rule.protects.split())


def decide(action: Action, *, source: FixSource | None = None) -> PolicyDecision:
    """The gate's word on an action. source: where it comes from, when that is not what the action says."""
    origin = source or action.source
    if not action.content.strip():
        return _denied("no_effect", "The script is empty.")
    try:
        reading = _read_ansible(action.content) if action.kind == "ansible" else read_script(action.content)
    except InvalidArgument as e:
        return _denied("unreadable", e.message)
    if reading.unread and origin not in _TRUSTED:
        return _denied("unreadable", f"It cannot be read as bash near {reading.unread[0]!r}.")
    programs = frozenset(command.name for command in reading.commands)
    for rule in rules():
        if rule.id == "reboots" and action.needs_reboot and origin in _TRUSTED:
            continue
        for pattern in rule.match:
            if origin in pattern.sources and (what := _found(pattern, reading, programs)):
                return _denied(rule.id, f"{rule.explanation} ({what[:120]})")
    if _idle(reading):
        return _denied("no_effect", "The script changes nothing: it only ends, or prints.")
    if action.mutability is Mutability.FORBIDDEN:
        return _denied("declared", "Its own skill says that it must never run.")
    # What the skill declares narrows: a script may be worse than it reads, never better.
    declared = action.mutability is Mutability.DESTRUCTIVE
    return PolicyDecision(allowed=True, mutability=action.mutability if declared else _mutability(reading))


def _denied(rule: str, explanation: str) -> PolicyDecision:
    return PolicyDecision(allowed=False, mutability=Mutability.FORBIDDEN, rule=rule, explanation=explanation)


def _mutability(reading: Reading) -> Mutability:
    """READ_ONLY only when every command is known to look and not to touch."""
    if reading.writes:
        return Mutability.REVERSIBLE
    for command in reading.commands:
        name = command.name
        if name in reading.functions:
            continue
        if name == "systemctl" and not _LOOKING_UNITS.match(" ".join(command.args)):
            return Mutability.REVERSIBLE
        if name not in _READ_ONLY or (name not in _IDLE and _MAY_WRITE.search(" ".join(command.args))):
            return Mutability.REVERSIBLE
    return Mutability.READ_ONLY


def _idle(reading: Reading) -> bool:
    return not reading.writes and all(c.name in _IDLE for c in reading.commands if c.name not in reading.functions)


def _found(pattern: Pattern, reading: Reading, programs: frozenset[str]) -> str:
    """What of the script matches the pattern; empty when nothing does."""
    if pattern.special == "fork_bomb":
        return next(_fork_bombs(reading), "")
    if pattern.special == "unreadable_code":
        return unreadable_code(reading)
    if pattern.piped is not None:
        return _found_pipe(pattern.piped, reading)
    if pattern.writes:
        return next((w.path for w in reading.writes if _writes(pattern, w)), "")
    if pattern.text:
        texts = (*reading.texts, *(arg for c in reading.commands for arg in c.args))
        return next((m.group(0) for text in texts if (m := re.search(pattern.text, text))), "")
    named = pattern.named(programs)
    return _found_command(pattern, [c for c in reading.commands if c.name in named]) if named else ""


def _found_command(pattern: Pattern, commands: Sequence[Command]) -> str:
    for command in commands:
        if pattern.looped_in_background and not (command.background and command.looped_forever):
            continue
        words = " ".join(command.args)
        if re.search(pattern.args, words) and not (pattern.unless and re.search(pattern.unless, words)):
            return command.line
    return ""


def _found_pipe(piped: Piped, reading: Reading) -> str:
    for command in reading.commands:
        # A shell with a script of its own reads data from the pipe, not code.
        if command.name in piped.to and set(command.piped_from) & set(piped.from_) and not _own_script(command.args):
            return f"{' | '.join(command.piped_from)} | {command.line}"
    return ""


def _own_script(args: Sequence[str]) -> bool:
    return bool(args) and args[0] not in ("-", "-s", "-x", "-e", "/dev/stdin")


def _writes(pattern: Pattern, write: Write) -> bool:
    if pattern.how and write.how not in pattern.how:
        return False
    return any(re.fullmatch(pattern.writes, path) for path in meant(write.path, _protected()))


def _fork_bombs(reading: Reading) -> Iterator[str]:
    for name, body in reading.functions.items():
        own = re.escape(name)
        if re.search(rf"(?<![\w-]){own}\s*\|\s*{own}\s*&|(?<![\w-]){own}\s*&[^&]", body):
            yield f"{name}() starts itself in the background"


def _read_ansible(text: str) -> Reading:
    """An Ansible fix in the terms of the gate."""
    if re.search(r"\b(lookup|query|q)\s*\(|\bdelegate_to\b|\blocal_action\b|^\s*connection\s*:", text, re.M):
        raise InvalidArgument("an Ansible fix may act on the target only: no lookups, delegation or other connections")
    reading = Reading()
    for task in tasks_of(text):
        _read_task(task, reading)
    return reading


def _read_task(task: Mapping[str, Any], reading: Reading) -> None:
    for key in ("block", "rescue", "always"):
        for inner in task.get(key) or ():
            _read_task(inner, reading)
    for key, value in task.items():
        match str(key).rsplit(".", 1)[-1]:
            case "shell" | "command" | "raw" | "script":
                command = value if isinstance(value, str) else (value or {}).get("cmd", "")
                _merge(reading, read_script(_template_free(str(command))))
            case "get_url" | "uri" | "git" | "unarchive" | "fetch":
                _merge(reading, read_script("curl http://unknown"))
            case "reboot":
                _merge(reading, read_script("reboot"))
            case "user" | "group" if isinstance(value, Mapping) and value.get("state") == "absent":
                _merge(reading, read_script(f"userdel {value.get('name')}"))
            case "service" | "systemd" if isinstance(value, Mapping):
                _read_service(value, reading)
            case "package" | "dnf" | "yum" if isinstance(value, Mapping):
                verb = "remove" if value.get("state") in ("absent", "removed") else "install"
                _merge(reading, read_script(f"dnf {verb} {value.get('name')}"))
            case "file" | "lineinfile" | "replace" | "copy" | "template" | "ini_file" | "blockinfile" if isinstance(
                value, Mapping
            ):
                path = str(value.get("path") or value.get("dest") or value.get("name") or "")
                reading.writes.append(Write(path=path, how=_how(str(key).rsplit(".", 1)[-1], value)))
                reading.texts += [str(value.get(k)) for k in ("line", "content", "replace", "block") if value.get(k)]
            case "sysctl" | "mount" | "cron" | "set_fact" | "rpm_key" | "user" | "group":
                reading.writes.append(Write(path="(ansible)", how="edit"))


def _how(module: str, value: Mapping[str, Any]) -> How:
    if module != "file":
        return "edit"
    return "delete" if value.get("state") == "absent" else "mode"


def _read_service(value: Mapping[str, Any], reading: Reading) -> None:
    name = value.get("name")
    if value.get("state") == "stopped":
        _merge(reading, read_script(f"systemctl stop {name}"))
    if value.get("enabled") in (False, "no", "false"):
        _merge(reading, read_script(f"systemctl disable {name}"))
    if value.get("masked") in (True, "yes", "true"):
        _merge(reading, read_script(f"systemctl mask {name}"))
    if value.get("state") in ("started", "restarted", "reloaded") or value.get("enabled"):
        reading.writes.append(Write(path="(ansible)", how="edit"))


def _template_free(text: str) -> str:
    """Jinja's expressions are values that are not known here."""
    return re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "$unknown", text, flags=re.S)


def _merge(reading: Reading, other: Reading) -> None:
    reading.commands += other.commands
    reading.writes += other.writes
    reading.texts += other.texts
    reading.functions.update(other.functions)
