"""The rungs that need no memory and no model: the vendor's bash fix, its Ansible fix, and the skill's own fixes/.

A fix of our own that replaces the vendor's stands before it: what is known not to work is not tried first.
"""

import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from anneal_contracts.facts import Action, FixSource, ItemDetail
from anneal_runtime.errors import InvalidArgument
from anneal_skillkit.ansible_run import missing_modules, run_ansible
from anneal_skillkit.effects import run_effect
from anneal_skillkit.interfaces import Context, ExecResult, Permit
from anneal_skillkit.manifest import Manifest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stig_rhel9.content import ContentStore, Rule

_META: Final = "meta.yaml"
_SCRIPT: Final = "fix.sh"


class FixMeta(BaseModel):
    """fixes/<rule>/meta.yaml: what is known of a curated fix before it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=200)]
    # The mechanism: why the vendor's fix is missing or fails, and why this one is right.
    why: Annotated[str, Field(min_length=1)]
    risks_reach: bool = False
    needs_reboot: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    # Set where the vendor's fix is known not to work, or to break another rule; `why` says how.
    replaces: Literal["vendor", ""] = ""
    # Variables of the content that the script uses: each stands at its head with the profile's value.
    values: tuple[Annotated[str, Field(pattern=r"^[a-z]\w+$")], ...] = ()
    # Functions that several fixes share: fixes/<part>.sh stands at the head of the script, after the values.
    parts: tuple[Annotated[str, Field(pattern=r"^[a-z]\w+$")], ...] = ()


class StigExecutor:
    """The Executor of the skill."""

    def __init__(self, manifest: Manifest, folder: Path, store: ContentStore) -> None:
        self._manifest = manifest
        self._fixes = folder / "fixes"
        self._store = store

    async def ladder(self, ctx: Context, item: ItemDetail) -> Sequence[Action]:
        """Candidates in the order they are to be tried. Raises InvalidArgument for a broken curated fix."""
        content = await self._store.get(ctx.profile, ctx.tailoring)
        rule = content.rule(item.id)
        folder = self._fixes / rule.id
        if not (folder / _SCRIPT).is_file():
            return self._vendor(rule)
        meta = read_meta(folder)
        curated = self._curated(rule, meta, read_script(folder, meta, content.values()))
        vendor = self._vendor(rule)
        return [curated, *vendor] if meta.replaces == "vendor" else [*vendor, curated]

    async def apply(self, ctx: Context, action: Action, permit: Permit) -> ExecResult:
        """Carries an action out under its markers; see anneal_skillkit.effects."""
        if action.kind == "ansible":
            return await run_ansible(ctx.session, permit, action.content, timeout_s=action.timeout_s)
        return await run_effect(ctx.session, permit, action.content.encode(), timeout_s=action.timeout_s)

    def _vendor(self, rule: Rule) -> list[Action]:
        actions = []
        for kind, word in (("bash", "shell"), ("ansible", "Ansible")):
            fix = rule.fixes.get(kind)
            # An Ansible fix whose modules are not installed here could only fail.
            if fix is None or not fix.text.strip() or (kind == "ansible" and missing_modules(fix.text)):
                continue
            actions.append(
                Action(
                    source=FixSource.VENDOR,
                    kind="ansible" if kind == "ansible" else "bash",
                    title=f"The content's own {word} fix ({fix.strategy}, disruption {fix.disruption})",
                    content=fix.text,
                    risks_reach=self._risks_reach(rule.id),
                    needs_reboot=fix.reboot,
                    timeout_s=self._timeout_s(rule.id),
                )
            )
        return actions

    def _curated(self, rule: Rule, meta: FixMeta, script: str) -> Action:
        undo = self._fixes / rule.id / "undo.sh"
        return Action(
            source=FixSource.CURATED,
            kind="bash",
            title=meta.title,
            content=script,
            risks_reach=meta.risks_reach or self._risks_reach(rule.id),
            needs_reboot=meta.needs_reboot,
            undo=undo.read_text(encoding="utf-8") if undo.is_file() else None,
            timeout_s=max(meta.timeout_s, self._timeout_s(rule.id)),
        )

    def _risks_reach(self, rule_id: str) -> bool:
        globs = self._manifest.settings.get("risks_reach")
        return isinstance(globs, list) and any(fnmatchcase(rule_id, str(glob)) for glob in globs)

    def _timeout_s(self, rule_id: str) -> float:
        slow = self._manifest.settings.get("slow_fixes")
        if isinstance(slow, dict):
            for glob, seconds in slow.items():
                if fnmatchcase(rule_id, glob) and isinstance(seconds, int | float):
                    return float(seconds)
        return self._manifest.timeouts.apply


def read_script(folder: Path, meta: FixMeta, values: Mapping[str, str]) -> str:
    """A curated fix as it is shown and as it runs: values and shared parts at its head. Raises InvalidArgument."""
    path = folder / _META
    if unknown := [name for name in meta.values if name not in values]:
        raise InvalidArgument(f"{path}: values: the content has no {unknown[0]}", field="values")
    files = [folder.parent / f"{name}.sh" for name in meta.parts]
    if missing := [file.name for file in files if not file.is_file()]:
        raise InvalidArgument(f"{path}: parts: there is no {missing[0]} in {folder.parent}", field="parts")
    first, _, rest = (folder / _SCRIPT).read_text(encoding="utf-8").partition("\n")
    head = [f"{name}={shlex.quote(values[name])}\n" for name in meta.values]
    return "".join([f"{first}\n", *head, *(file.read_text(encoding="utf-8") for file in files), rest])


def read_meta(folder: Path) -> FixMeta:
    """A curated fix's meta.yaml. Raises InvalidArgument naming the file and the field."""
    path = folder / _META
    try:
        return FixMeta.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidArgument(f"{path}: {place}: {first['msg']}", field=place) from e
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InvalidArgument(f"{path}: {e}", field=_META) from e
