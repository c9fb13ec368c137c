"""Manifests and skills: what is broken is named by file and field, and keeps nothing else from loading."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from anneal_runtime.errors import NotFound
from anneal_skillkit.conformance import check_skill
from anneal_skillkit.loader import BrokenSkill, discover_skills, load_skill
from anneal_skillkit.manifest import BrokenManifest, Manifest, load_manifest, schema_text

SKILLS = Path(__file__).parents[3] / "skills"
RUNTIME = "def build(spec):\n    return spec.manifest.name\n"


def _skill(root: Path, called: str = "demo", code: str = RUNTIME, **changes: Any) -> Path:
    folder = root / called
    folder.mkdir()
    manifest = {
        "name": called,
        "version": "1.0.0",
        "summary": "s",
        "profiles": [{"name": "all"}],
        "default_profile": "all",
        **changes,
    }
    (folder / "skill.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "runtime.py").write_text(code)
    return folder


def test_the_published_schema_is_the_models() -> None:
    assert (SKILLS / "skill.schema.json").read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("path", sorted(SKILLS.glob("*/skill.yaml")), ids=lambda p: p.parent.name)
def test_every_skill_here_is_valid_by_the_published_schema(path: Path) -> None:
    schema = json.loads((SKILLS / "skill.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)
    assert load_manifest(path.parent).name == path.parent.name


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": "one"}, "version"),
        ({"modes": [{"name": "x", "response": "shrug"}]}, "modes.0.response"),
        ({"modes": [{"name": "apply_error", "response": "retry"}]}, "modes"),
        ({"default_profile": "none"}, "default_profile"),
        ({"profiles": []}, "profiles"),
        ({"colour": "red"}, "colour"),
        ({"timeouts": {"apply": -1}}, "timeouts.apply"),
        ({"runtime": "../../etc/passwd"}, "runtime"),
        ({"prompts": {"worker": "prompts/none.md"}}, "prompts.worker"),
        ({"name": "other"}, "name"),
    ],
)
def test_a_broken_manifest_names_the_file_and_the_field(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    folder = _skill(tmp_path, **changes)
    with pytest.raises(BrokenManifest) as caught:
        load_manifest(folder)
    assert caught.value.field == field
    assert str(folder / "skill.yaml") in caught.value.message


@pytest.mark.parametrize("text", ["a: [", "- a list", ""])
def test_a_file_that_is_no_manifest_at_all_is_an_error_too(tmp_path: Path, text: str) -> None:
    folder = _skill(tmp_path)
    (folder / "skill.yaml").write_text(text)
    with pytest.raises(BrokenManifest):
        load_manifest(folder)


def test_a_broken_skill_keeps_no_other_from_loading(tmp_path: Path) -> None:
    _skill(tmp_path, "good")
    _skill(tmp_path, "bad-manifest", version="x")
    _skill(tmp_path, "bad-import", code="import no_such_module\n")
    _skill(tmp_path, "bad-build", code="def build(spec):\n    raise ValueError('no')\n")
    _skill(tmp_path, "no-build", code="x = 1\n")
    found = discover_skills(tmp_path, cache=tmp_path / "cache")
    assert list(found.skills) == ["good"]
    assert sorted(found.broken) == ["bad-build", "bad-import", "bad-manifest", "no-build"]
    runtime: object = found.get("good").runtime
    assert runtime == "good"
    with pytest.raises(BrokenSkill):
        found.get("bad-import")
    with pytest.raises(NotFound) as caught:
        found.get("nobody")
    assert caught.value.field == "skill"


def test_two_skills_may_not_share_a_module_name(tmp_path: Path) -> None:
    folder = _skill(tmp_path)
    (folder / "json").mkdir()
    (folder / "json" / "__init__.py").touch()
    with pytest.raises(BrokenSkill, match="taken"):
        load_skill(folder, cache=tmp_path / "cache")


def test_the_largest_rank_of_all_that_match_counts() -> None:
    manifest = Manifest.model_validate(
        {
            "name": "demo",
            "version": "1.0.0",
            "summary": "s",
            "profiles": [{"name": "all"}],
            "default_profile": "all",
            "ordering": [
                {"items": ["package_*"], "rank": -3, "why": "first"},
                {"items": ["*ssh*", "*pam*"], "rank": 5, "why": "late"},
            ],
        }
    )
    ranks = [manifest.rank(item) for item in ("package_x", "package_openssh", "other")]
    assert ranks == [-3, 5, 0]


async def test_conformance_tells_what_a_skill_lacks(tmp_path: Path) -> None:
    findings = {f.check: f.problem for f in await check_skill(_skill(tmp_path), cache=tmp_path / "cache")}
    assert findings["loads"] == ""
    assert "work_queue" in findings["has_all_interfaces"]
    assert "SKILL.md" in findings["explains_itself"]
