"""The manifest of a skill (skill.yaml): one model that validates it and gives the published JSON schema.

`python -m anneal_skillkit.manifest` prints the schema; skills/skill.schema.json is that text, and a test compares them.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

import yaml
from anneal_contracts.facts import CoreMode, DeclaredMode, OrderRule, SkillPolicy
from anneal_runtime.errors import InvalidArgument
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

MANIFEST_FILE: Final = "skill.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
Role = Literal["architect", "worker", "reflector"]
Seconds = Annotated[float, Field(gt=0, le=7200)]


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not path:
        raise ValueError("must be a path inside the skill's folder")
    return path


SkillFile = Annotated[str, AfterValidator(_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Profile(_Part):
    """A named selection of the skill's work, as a run's `--profile`."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    title: str = ""


class Timeouts(_Part):
    """Seconds that each kind of work may take at the most."""

    discover: Seconds = 300.0
    evaluate: Seconds = 60.0
    apply: Seconds = 120.0
    verify: Seconds = 300.0


class Export(_Part):
    """A report format that the skill can write from a finished run."""

    format: Name
    media_type: str
    summary: str = ""


class Ordering(_Part):
    """Moves items whose id matches one of the globs: a higher rank runs later, and the largest of all counts."""

    items: Annotated[tuple[str, ...], Field(min_length=1)]
    rank: Annotated[int, Field(ge=-1000, le=1000)]
    why: Annotated[str, Field(min_length=1)]


KitProbe = Literal["show_check", "read_file", "list_folder", "search_files", "query_package", "query_unit"]
_OF_PATHS: Final = frozenset({"read_file", "list_folder", "search_files"})
ShownPath = Annotated[str, Field(pattern=r"^/[^\s/?\[\]{}'\"\\]+[^\s?\[\]{}'\"\\]*$")]


class Probes(_Part):
    """Questions of the kit that a model may ask before it proposes, and the globs of paths that they may show."""

    tools: tuple[KitProbe, ...] = ()
    paths: tuple[ShownPath, ...] = ()

    @model_validator(mode="after")
    def _says_what_is_shown(self) -> Self:
        if _OF_PATHS & set(self.tools) and not self.paths:
            raise ValueError("paths: read_file, list_folder and search_files show nothing without them")
        return self


class Waits(_Part):
    """Items that wait, at run time, until a share of others has come to an end; where all wait, the order decides."""

    items: Annotated[tuple[str, ...], Field(min_length=1)]
    # Globs of item ids, or `category:` with a glob of categories.
    behind: Annotated[tuple[str, ...], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    why: Annotated[str, Field(min_length=1)]


class Manifest(_Part):
    """skill.yaml, validated."""

    name: Name
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    summary: Annotated[str, Field(min_length=1, max_length=500)]
    runtime: SkillFile = "runtime.py"
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1)]
    default_profile: str
    modes: tuple[DeclaredMode, ...] = ()
    volatile_paths: tuple[str, ...] = ()
    mission_services: tuple[str, ...] = ()
    # Programs that the skill needs on a target; `anneal target test` looks for them.
    target_tools: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    exports: tuple[Export, ...] = ()
    ordering: tuple[Ordering, ...] = ()
    waits: tuple[Waits, ...] = ()
    # Role -> file with what this skill adds to the role's prompt.
    prompts: dict[Role, SkillFile] = Field(default_factory=dict)
    probes: Probes = Probes()
    # The skill's own settings, which nobody else reads.
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [profile.name for profile in self.profiles]
        if len(set(names)) != len(names):
            raise ValueError("profiles: a name is given twice")
        if self.default_profile not in names:
            raise ValueError(f"default_profile: {self.default_profile!r} is not one of {names}")
        core = {mode.value for mode in CoreMode}
        if taken := [mode.name for mode in self.modes if mode.name in core]:
            raise ValueError(f"modes: {taken[0]} is a core mode")
        return self

    def rank(self, item_id: str) -> int:
        """The item's place by the ordering constraints; 0 when none names it."""
        ranks = [order.rank for order in self.ordering if any(fnmatchcase(item_id, glob) for glob in order.items)]
        return max(ranks, default=0)

    def policy(self) -> SkillPolicy:
        """What the engine needs to know of the skill."""
        return SkillPolicy(
            name=self.name,
            version=self.version,
            modes=self.modes,
            volatile_paths=self.volatile_paths,
            mission_services=self.mission_services,
            default_profile=self.default_profile,
            order_rules=tuple(OrderRule(**rule.model_dump()) for rule in self.waits),
            discover_timeout_s=self.timeouts.discover,
            evaluate_timeout_s=self.timeouts.evaluate,
            verify_timeout_s=self.timeouts.verify,
        )


class BrokenManifest(InvalidArgument):
    """A skill.yaml that cannot be used; the message names the file, the field the place in it."""

    reason = "broken_manifest"


def load_manifest(folder: Path) -> Manifest:
    """Reads and validates the folder's skill.yaml, and that every file it names exists. Raises BrokenManifest."""
    path = folder / MANIFEST_FILE
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise BrokenManifest(f"{path}: {_first_line(e)}", field=MANIFEST_FILE) from e
    if not isinstance(data, Mapping):
        raise BrokenManifest(f"{path}: must be a mapping of fields", field=MANIFEST_FILE)
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        words = first["msg"].removeprefix("Value error, ")
        if not place and ": " in words:
            place, words = words.split(": ", 1)
        raise BrokenManifest(f"{path}: {place}: {words}", field=place) from e
    if manifest.name != folder.name:
        raise BrokenManifest(f"{path}: name: {manifest.name!r} must be the folder's name {folder.name!r}", field="name")
    for field, file in _files(manifest):
        if not (folder / file).is_file():
            raise BrokenManifest(f"{path}: {field}: no file {file!r} in the skill's folder", field=field)
    return manifest


def schema_text() -> str:
    """The published JSON schema of a manifest, as it is committed."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Manifest.model_json_schema(),
        "title": "anneal skill manifest (skill.yaml)",
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _files(manifest: Manifest) -> list[tuple[str, str]]:
    named = [("runtime", manifest.runtime)]
    return named + [(f"prompts.{role}", file) for role, file in manifest.prompts.items()]


def _first_line(e: Exception) -> str:
    return " ".join(str(e).split())[:300]


if __name__ == "__main__":
    print(schema_text(), end="")
