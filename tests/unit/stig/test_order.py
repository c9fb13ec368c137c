"""The skill's rules about order, as the engine obeys them."""

from pathlib import Path

from anneal_skillkit.manifest import load_manifest

from tests.unit.core.world import World, item

SKILL = Path(__file__).parents[3] / "skills" / "stig-rhel9"


def test_what_makes_the_audit_rules_immutable_waits_for_every_other_audit_rule_whatever_its_priority() -> None:
    rules = load_manifest(SKILL).policy().order_rules
    immutable = ["audit_rules_immutable_login_uids", "audit_rules_immutable"]
    ids = [*immutable, "audit_rules_suid", "sshd_x", "audit_rules_time"]
    world = World(items=[item(i, priority=n) for n, i in enumerate(ids)], policy={"order_rules": rules})
    world.create()
    world.run()
    worked = [str(e.payload["item_id"]) for e in world.log if e.type == "attempt_started"]
    assert worked == ["audit_rules_suid", "sshd_x", "audit_rules_time", *immutable]
