"""The skill, assembled: anneal's loader calls build()."""

from anneal_skillkit.interfaces import SkillRuntime
from anneal_skillkit.loader import SkillSpec
from stig_rhel9.assembly import StigSkill


def build(spec: SkillSpec) -> SkillRuntime:
    """The five interfaces of stig-rhel9."""
    return StigSkill(spec)
