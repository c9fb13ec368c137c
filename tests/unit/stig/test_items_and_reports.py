"""Items, what is left alone, the ladder's curated rung, and the reports."""

import gzip
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from anneal_contracts.facts import FixSource, Outcome
from anneal_runtime.errors import InvalidArgument, NotFound
from anneal_skillkit.interfaces import Context, TargetSession
from anneal_skillkit.loader import Skill
from anneal_skillkit.manifest import Manifest
from lxml import etree

if TYPE_CHECKING:
    from stig_rhel9.facts import Facts
    from stig_rhel9.fixability import Fixability

DATA = Path(__file__).with_name("data")
OVAL = "{http://oval.mitre.org/XMLSchema/oval-definitions-5}oval_definitions"


def fixability(definition: str, *, negate: bool = False) -> "Fixability":
    from stig_rhel9.content import Check
    from stig_rhel9.fixability import Fixability

    oval = next(etree.parse(DATA / "datastream.xml").iter(OVAL))
    check = Check(definition=f"oval:t-{definition}:def:1", klass="compliance", negate=negate, applicability=None)
    return Fixability(etree.tostring(oval), check)


def facts(
    *,
    mounts: set[str] | None = None,
    fixed: set[str] | None = None,
    absent: set[str] | None = None,
    unoffered: set[str] | None = None,
    dead_units: dict[str, str] | None = None,
) -> "Facts":
    from stig_rhel9.facts import Facts

    return Facts(
        os_id="rhel",
        os_version="9.1",
        release="redhat-release-9.1",
        arch="x86_64",
        virtualization="systemd-nspawn",
        mounts=frozenset(mounts or {"/"}),
        fixed_sysctls=frozenset(fixed or ()),
        absent_sysctls=frozenset(absent or ()),
        unoffered=frozenset(unoffered or ()),
        dead_units=dead_units or {},
        hidden_mounts=frozenset(),
        signing_key=True,
        login="",
    )


def test_a_kernel_parameter_that_cannot_be_set_blocks_only_what_needs_it(skill: Skill) -> None:
    stuck = facts(fixed={"kernel.demo"})
    false = {"oval:t-sysctl:tst:1", "oval:t-min:tst:1"}
    assert "kernel.demo is read-only" in fixability("kernel").blocked(stuck, false)
    # Another branch may still make the rule hold.
    assert fixability("either").blocked(stuck, false) == ""
    # The parameter is right already, only the file is missing.
    assert fixability("kernel").blocked(stuck, {"oval:t-min:tst:1"}) == ""
    assert fixability("kernel").blocked(facts(), false) == ""
    assert "there is no kernel parameter" in fixability("kernel").blocked(facts(absent={"kernel.demo"}), false)
    assert fixability("kernel", negate=True).blocked(stuck, false) == ""


def test_a_mount_point_that_wants_a_disk_blocks_its_rule(skill: Skill) -> None:
    false = {"oval:t-part:tst:1"}
    assert "/var/demo is not a file system of its own" in fixability("mount").blocked(facts(), false)
    assert fixability("mount").blocked(facts(mounts={"/", "/var/demo"}), false) == ""


async def test_two_fresh_clones_share_a_fingerprint_and_other_systems_do_not(
    skill: Skill, manifest: Manifest, tmp_path: Path
) -> None:
    from stig_rhel9.content import ContentStore

    content = await ContentStore(manifest, Path("/"), tmp_path).get("base", b"")
    one = facts()
    assert one.fingerprint(content) == facts(mounts={"/", "/home"}).fingerprint(content)
    others = [replace(one, os_version="9.2"), replace(one, arch="aarch64"), replace(one, virtualization="kvm")]
    assert len({f.fingerprint(content) for f in (one, *others)}) == 4


async def test_an_item_carries_every_text_of_its_rule(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    from stig_rhel9.content import ContentStore
    from stig_rhel9.queue import StigQueue

    store = ContentStore(manifest, Path("/"), tmp_path)
    item = StigQueue(manifest, store).item((await store.get("base", b"")).rule("password_pass_min"), "")
    assert "Set minlen to 15" in item.description
    assert "Users will notice." in item.description
    assert "minlen = $var" in item.fix_text
    assert (item.rationale, item.severity) == ("Short is weak.", "high")
    assert item.check_text.endswith("Does it pass?")
    assert item.references["SRG"] == ["SRG-OS-000078-GPOS-00046"]


def test_the_order_puts_packages_first_reach_late_and_the_immutable_rule_last(skill: Skill) -> None:
    rank = skill.manifest.rank
    order = [
        "package_audit_installed",
        "service_auditd_enabled",
        "banner_etc_issue",
        "sudo_remove_nopasswd",
        "sshd_disable_root_login",
        "configure_crypto_policy",
        "audit_rules_immutable",
    ]
    assert sorted(order, key=rank) == order
    assert len({rank(name) for name in order}) == len(order)


async def test_a_specification_is_checked_field_by_field(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    from stig_rhel9.content import ContentStore
    from stig_rhel9.queue import StigQueue

    queue = StigQueue(manifest, ContentStore(manifest, Path("/"), tmp_path))
    full = "xccdf_org.ssgproject.content_rule_motd"
    assert await queue.check(profile="", item_ids=["motd", full], tailoring=b"") == []
    assert [f for f, _ in await queue.check(profile="", item_ids=["motd", "none"], tailoring=b"")] == ["item_ids"]
    assert [f for f, _ in await queue.check(profile="none", item_ids=[], tailoring=b"")] == ["profile"]
    assert [f for f, _ in await queue.check(profile="", item_ids=[], tailoring=b"<x/>")] == ["tailoring"]


def test_a_broken_curated_fix_names_the_file_and_the_field(skill: Skill, tmp_path: Path) -> None:
    from stig_rhel9.ladder import read_meta

    (tmp_path / "meta.yaml").write_text("title: t\nwhy: w\ntimeout_s: -1\n")
    with pytest.raises(InvalidArgument, match=r"meta\.yaml") as caught:
        read_meta(tmp_path)
    assert caught.value.field == "timeout_s"


@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parents[3] / "skills/stig-rhel9/fixes").glob("*/")), ids=lambda p: p.name
)
def test_every_curated_fix_is_whole_and_passes_the_gate(skill: Skill, folder: Path) -> None:
    from anneal_contracts.facts import Action
    from anneal_skillkit.policy import decide
    from stig_rhel9.ladder import read_meta, read_script

    meta = read_meta(folder)
    script = read_script(folder, meta, dict.fromkeys(meta.values, "15"))
    action = Action(
        source=FixSource.CURATED, kind="bash", title=meta.title, content=script, needs_reboot=meta.needs_reboot
    )
    assert decide(action).allowed, decide(action).explanation
    undo = folder / "undo.sh"
    if undo.is_file():
        back = action.model_copy(update={"kind": "undo", "content": undo.read_text(encoding="utf-8")})
        assert decide(back).allowed, decide(back).explanation
    for case in ("failing.sh", "passing.sh"):
        assert (folder.parents[1] / "cases" / folder.name / case).is_file()


async def test_a_fix_that_replaces_the_vendors_comes_first_with_the_profiles_values(
    skill: Skill, manifest: Manifest, tmp_path: Path
) -> None:
    from stig_rhel9.content import ContentStore
    from stig_rhel9.ladder import StigExecutor
    from stig_rhel9.queue import StigQueue

    store = ContentStore(manifest, Path("/"), tmp_path / "cache")
    item = StigQueue(manifest, store).item((await store.get("base", b"")).rule("password_pass_min"), "")
    folder = tmp_path / "fixes" / item.id
    folder.mkdir(parents=True)
    (folder / "fix.sh").write_text('#!/bin/bash\necho "$min"\n')
    session = cast(TargetSession, None)
    ctx = Context(run_id="r", profile="base", tailoring=b"", session=session, cache=tmp_path)
    executor = StigExecutor(manifest, tmp_path, store)
    (folder / "meta.yaml").write_text("title: t\nwhy: w\n")
    assert [a.source for a in await executor.ladder(ctx, item)][-1] is FixSource.CURATED
    (folder / "meta.yaml").write_text("title: t\nwhy: w\nreplaces: vendor\nvalues: [min]\n")
    first, *rest = await executor.ladder(ctx, item)
    assert first.source is FixSource.CURATED
    assert [a.source for a in rest] == [FixSource.VENDOR] * len(rest)
    assert first.content == '#!/bin/bash\nmin=15\necho "$min"\n'
    (folder / "meta.yaml").write_text("title: t\nwhy: w\nvalues: [nowhere]\n")
    with pytest.raises(InvalidArgument, match="nowhere") as caught:
        await executor.ladder(ctx, item)
    assert caught.value.field == "values"


def test_a_part_that_fixes_share_is_in_the_script_that_is_shown_and_works_in_it(skill: Skill, tmp_path: Path) -> None:
    from stig_rhel9.ladder import FixMeta, read_script

    folder = tmp_path / "fixes" / "rule"
    folder.mkdir(parents=True)
    (folder / "fix.sh").write_text("#!/bin/bash\nset -e\nsay\n")
    (folder.parent / "shared.sh").write_text('say() { echo "at least $min"; }\n')
    meta = FixMeta(title="t", why="w", values=("min",), parts=("shared",))
    script = read_script(folder, meta, {"min": "15"})
    assert script == '#!/bin/bash\nmin=15\nsay() { echo "at least $min"; }\nset -e\nsay\n'
    ran = subprocess.run(["bash", "-s"], input=script, capture_output=True, text=True, check=True)
    assert ran.stdout == "at least 15\n"
    with pytest.raises(InvalidArgument, match=r"no nowhere\.sh") as caught:
        read_script(folder, meta.model_copy(update={"parts": ("nowhere",)}), {"min": "15"})
    assert caught.value.field == "parts"


async def test_the_checklist_has_every_rule_with_its_status(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    from stig_rhel9.content import ContentStore
    from stig_rhel9.exports import export

    rows = {"password_pass_min": "fail", "motd": "pass", "manual": "notchecked"}
    body = "".join(
        f'<rule-result idref="xccdf_org.ssgproject.content_rule_{n}"><result>{r}</result></rule-result>'
        for n, r in rows.items()
    )
    arf = gzip.compress(f'<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2">{body}</TestResult>'.encode())
    store = ContentStore(manifest, Path("/"), tmp_path)
    item = {"id": "password_pass_min", "state": "escalated", "reason": "no fix worked"}
    run = {"id": "run-1", "profile": "base", "target": "box", "items": [item]}
    raw, media = await export(store, "cklb", run, {"arf_before": b"", "arf_after": arf})
    checklist = json.loads(raw)
    assert media == "application/json"
    rules = {rule["group_id"]: rule for rule in checklist["stigs"][0]["rules"]}
    status = {name: rule["status"] for name, rule in rules.items()}
    assert status == {"password_pass_min": "open", "motd": "not_a_finding", "manual": "not_reviewed"}
    assert rules["password_pass_min"]["comments"] == "anneal: escalated, no fix worked"
    assert rules["password_pass_min"]["ccis"] == ["CCI-000205"]
    assert checklist["cklb_version"] == "1.0"
    assert (await export(store, "cklb", run, {"arf_after": arf}))[0] == raw
    assert (await export(store, "arf", run, {"arf_after": arf}))[0] == arf
    with pytest.raises(NotFound):
        await export(store, "arf", run, {})
    assert Outcome.FAIL.value in rules["password_pass_min"]["finding_details"]
