"""Loading skills from their folders. A folder with skill.yaml and runtime.py is all that a skill is.

runtime.py has one function, `build(spec: SkillSpec) -> SkillRuntime`. Packages beside it are importable by their plain
names while the skill is loaded; a name that another skill has taken already is an error, not a surprise.
"""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from anneal_runtime.errors import AnnealError, InvalidArgument, NotFound

from anneal_skillkit.interfaces import SkillRuntime
from anneal_skillkit.manifest import MANIFEST_FILE, Manifest, Role, load_manifest


@dataclass(frozen=True, kw_only=True)
class SkillSpec:
    """What a skill's build() gets: its manifest, its folder, and a cache folder that may vanish between calls."""

    manifest: Manifest
    folder: Path
    cache: Path


@dataclass(frozen=True, kw_only=True)
class Skill:
    """A loaded skill."""

    manifest: Manifest
    runtime: SkillRuntime
    folder: Path

    def guidance(self, role: Role) -> str:
        """What the skill adds to a role's prompt; empty: nothing."""
        file = self.manifest.prompts.get(role)
        return (self.folder / file).read_text(encoding="utf-8") if file else ""


@dataclass(frozen=True, kw_only=True)
class SkillSet:
    """The skills of a folder: those that load, and the error of each that does not."""

    skills: Mapping[str, Skill]
    broken: Mapping[str, AnnealError]

    def get(self, name: str) -> Skill:
        """The skill of that name. Raises NotFound, or the error that keeps it from loading."""
        if name in self.broken:
            raise self.broken[name]
        if name not in self.skills:
            known = ", ".join(sorted(self.skills)) or "none"
            raise NotFound(f"unknown skill {name!r}; known: {known}", field="skill")
        return self.skills[name]


class BrokenSkill(InvalidArgument):
    """A skill whose code cannot be loaded."""

    reason = "broken_skill"


def default_cache() -> Path:
    """A folder of this user's own for what skills can rebuild."""
    return Path.home() / ".cache" / "anneal" / "skills"


def load_skill(folder: Path, *, cache: Path | None = None) -> Skill:
    """Loads a skill's folder. Raises BrokenManifest or BrokenSkill."""
    folder = folder.resolve()
    manifest = load_manifest(folder)
    home = (cache or default_cache()) / manifest.name
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    module = _import_runtime(folder, manifest)
    build = getattr(module, "build", None)
    if not callable(build):
        raise BrokenSkill(f"{folder / manifest.runtime} has no function build(spec)", field="runtime")
    try:
        runtime: SkillRuntime = build(SkillSpec(manifest=manifest, folder=folder, cache=home))
    except AnnealError:
        raise
    except Exception as e:
        raise BrokenSkill(f"{folder.name}: build() failed: {_words(e)}", field="runtime") from e
    return Skill(manifest=manifest, runtime=runtime, folder=folder)


def discover_skills(folder: Path, *, cache: Path | None = None) -> SkillSet:
    """Loads every skill below a folder; a broken one is reported by its error and keeps no other from loading."""
    skills: dict[str, Skill] = {}
    broken: dict[str, AnnealError] = {}
    for path in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
        try:
            skills[path.parent.name] = load_skill(path.parent, cache=cache)
        except AnnealError as e:
            broken[path.parent.name] = e
    return SkillSet(skills=skills, broken=broken)


def _import_runtime(folder: Path, manifest: Manifest) -> ModuleType:
    for package in folder.glob("*/__init__.py"):
        _refuse_taken(package.parent)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    name = f"anneal_skill_{manifest.name.replace('-', '_')}_runtime"
    spec = importlib.util.spec_from_file_location(name, folder / manifest.runtime)
    if spec is None or spec.loader is None:
        raise BrokenSkill(f"{folder / manifest.runtime} is not a Python file", field="runtime")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[name]
        raise BrokenSkill(f"{folder / manifest.runtime} cannot be imported: {_words(e)}", field="runtime") from e
    return module


def _refuse_taken(package: Path) -> None:
    """A module of that name from elsewhere would be used in place of the skill's own."""
    spec = importlib.util.find_spec(package.name)
    origin = spec.origin if spec else None
    if origin and not Path(origin).resolve().is_relative_to(package):
        raise BrokenSkill(f"{package}: the module name {package.name!r} is taken already", field="runtime")


def _words(e: Exception) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
