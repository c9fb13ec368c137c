"""The skill, loaded as the services load it, over a small datastream made for these tests."""

from pathlib import Path

import pytest
from anneal_skillkit.loader import Skill, load_skill
from anneal_skillkit.manifest import Manifest, load_manifest

SKILL = Path(__file__).parents[3] / "skills" / "stig-rhel9"
DATA = Path(__file__).with_name("data")


@pytest.fixture(scope="session")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Skill:
    return load_skill(SKILL, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def manifest(skill: Skill) -> Manifest:
    """The skill's manifest, pointed at the small datastream."""
    settings = {**load_manifest(SKILL).settings, "datastream": [str(DATA / "datastream.xml")]}
    profile = {"name": "base"}
    changes = {"settings": settings, "profiles": [profile], "default_profile": "base"}
    return Manifest.model_validate({**skill.manifest.model_dump(), **changes})
