"""Rules that cannot hold here, beside kernel parameters and mounts: packages, daemons, and what OVAL does not show."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from anneal_skillkit.loader import Skill

if TYPE_CHECKING:
    from stig_rhel9.facts import Facts
    from stig_rhel9.fixability import Fixability, Needs

_HEAD = (
    'xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5" '
    'xmlns:l="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux"'
)
_OVAL = f"""<oval_definitions {_HEAD}><definitions>
<definition id="oval:t-both:def:1"><criteria>
  <criterion test_ref="oval:t-pkg:tst:1"/><criterion test_ref="oval:t-unit:tst:1"/></criteria></definition>
<definition id="oval:t-gone:def:1"><criteria><criterion test_ref="oval:t-none:tst:1"/></criteria></definition>
<definition id="oval:t-key:def:1"><criteria><criterion test_ref="oval:t-key:tst:1"/></criteria></definition>
<definition id="oval:t-off:def:1"><criteria><criterion test_ref="oval:t-off:tst:1"/></criteria></definition>
</definitions><tests>
<l:rpminfo_test id="oval:t-pkg:tst:1" check_existence="all_exist">
  <l:object object_ref="oval:t-pkg:obj:1"/></l:rpminfo_test>
<l:rpminfo_test id="oval:t-none:tst:1" check_existence="none_exist">
  <l:object object_ref="oval:t-pkg:obj:1"/></l:rpminfo_test>
<l:rpminfo_test id="oval:t-key:tst:1"><l:object object_ref="oval:t-key:obj:1"/></l:rpminfo_test>
<l:systemdunitproperty_test id="oval:t-unit:tst:1"><l:object object_ref="oval:t-unit:obj:1"/>
  <l:state state_ref="oval:t-on:ste:1"/></l:systemdunitproperty_test>
<l:systemdunitproperty_test id="oval:t-off:tst:1"><l:object object_ref="oval:t-unit:obj:1"/>
  <l:state state_ref="oval:t-off:ste:1"/></l:systemdunitproperty_test>
</tests><objects>
<l:rpminfo_object id="oval:t-pkg:obj:1"><l:name>guard</l:name></l:rpminfo_object>
<l:rpminfo_object id="oval:t-key:obj:1"><l:name>gpg-pubkey</l:name></l:rpminfo_object>
<l:systemdunitproperty_object id="oval:t-unit:obj:1">
  <l:unit operation="pattern match">^guard\\.(socket|service)$</l:unit><l:property>ActiveState</l:property>
</l:systemdunitproperty_object>
</objects><states>
<l:systemdunitproperty_state id="oval:t-on:ste:1"><l:value>active</l:value></l:systemdunitproperty_state>
<l:systemdunitproperty_state id="oval:t-off:ste:1"><l:value operation="pattern match">inactive|failed</l:value>
</l:systemdunitproperty_state>
</states></oval_definitions>"""
ALL_FALSE = {f"oval:t-{name}:tst:1" for name in ("pkg", "none", "key", "unit", "off")}


def fixability(name: str) -> "Fixability":
    from stig_rhel9.content import Check
    from stig_rhel9.fixability import Fixability

    check = Check(definition=f"oval:t-{name}:def:1", klass="compliance", negate=False, applicability=None)
    return Fixability(_OVAL.encode(), check)


@pytest.fixture
def facts(skill: Skill) -> "Facts":
    from stig_rhel9.facts import Facts

    none: frozenset[str] = frozenset()
    return Facts(
        os_id="rhel",
        os_version="9.1",
        release="redhat-release-9.1",
        arch="x86_64",
        virtualization="none",
        mounts=frozenset({"/"}),
        fixed_sysctls=none,
        absent_sysctls=none,
        unoffered=none,
        dead_units={},
        hidden_mounts=frozenset(),
        signing_key=True,
        login="",
    )


def needs(settings: Mapping[str, object]) -> "Needs":
    from stig_rhel9.fixability import Needs

    return Needs(settings)


def test_a_package_that_nobody_offers_blocks_what_wants_it_installed(facts: "Facts") -> None:
    gone = replace(facts, unoffered=frozenset({"guard", "gpg-pubkey"}))
    assert "no enabled repository offers guard" in fixability("both").blocked(gone, ALL_FALSE)
    assert fixability("both").blocked(facts, ALL_FALSE) == ""
    # Installed already: only its daemon is missing.
    assert fixability("both").blocked(gone, {"oval:t-unit:tst:1"}) == ""
    # A rule that wants it removed, and the keys that the rpm database keeps like packages.
    assert fixability("gone").blocked(gone, ALL_FALSE) == ""
    assert fixability("key").blocked(gone, ALL_FALSE) == ""
    assert set(fixability("both").packages().values()) == {"guard"}


def test_a_daemon_that_cannot_run_blocks_what_wants_it_running(facts: "Facts") -> None:
    dead = replace(facts, dead_units={"guard.service": "there is no bus"})
    reason = fixability("both").blocked(dead, ALL_FALSE)
    assert reason == "guard.service cannot run in this machine: there is no bus"
    assert fixability("off").blocked(dead, ALL_FALSE) == ""
    assert fixability("both").blocked(replace(facts, dead_units={"other.service": "x"}), ALL_FALSE) == ""


def test_the_manifest_says_what_a_rule_hangs_on_beside_its_check(facts: "Facts") -> None:
    table = needs(
        {
            "needs_packages": {"*_policy": ["policies"]},
            "needs_units": {"make_rules": "guard.service"},
            "needs_person": {"who_may": "only a person can say"},
        }
    )
    lacking = replace(facts, unoffered=frozenset({"policies"}), dead_units={"guard.service": "no bus"})
    assert "offers policies" in table.reason("tls_policy", lacking)
    assert "guard.service cannot run" in table.reason("make_rules", lacking)
    assert [table.reason(name, facts) for name in ("tls_policy", "make_rules")] == ["", ""]
    assert table.reason("who_may", facts) == "only a person can say"


def test_the_logins_own_sudo_line_blocks_only_the_rule_that_forbids_it(facts: "Facts") -> None:
    ours = replace(facts, login="nopasswd")
    assert "would lose sudo" in needs({}).reason("sudo_remove_nopasswd", ours)
    assert needs({}).reason("sudo_remove_no_authenticate", ours) == ""
    assert needs({}).reason("sudo_remove_nopasswd", facts) == ""


def test_a_key_that_is_nowhere_is_asked_for(facts: "Facts") -> None:
    rule = "ensure_redhat_gpgkey_installed"
    assert "RPM-GPG-KEY-redhat-release" in needs({}).reason(rule, replace(facts, signing_key=False))
    assert needs({}).reason(rule, facts) == ""


def test_a_mount_that_no_path_leads_to_blocks_the_rule_about_all_of_them(facts: "Facts") -> None:
    rule = "mount_option_nodev_nonroot_local_partitions"
    assert "/mnt/old lacks nodev" in needs({}).reason(rule, replace(facts, hidden_mounts=frozenset({"/mnt/old"})))
    assert needs({}).reason(rule, facts) == ""
