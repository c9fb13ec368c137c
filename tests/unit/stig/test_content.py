"""Content: compiled once, with a profile's selection, values and platforms as OpenSCAP sees them."""

import asyncio
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anneal_runtime.errors import FailedPrecondition, InvalidArgument
from anneal_skillkit.loader import Skill
from anneal_skillkit.manifest import Manifest

if TYPE_CHECKING:
    from stig_rhel9.content import Content

NS = 'xmlns="http://checklists.nist.gov/xccdf/1.2"'
PREFIX = "xccdf_org.ssgproject.content"


def tailoring(body: str, *, extends: str = f"{PREFIX}_profile_base") -> bytes:
    head = f'<Tailoring {NS} id="t"><version time="2026-01-01T00:00:00">1</version>'
    return f'{head}<Profile id="site" extends="{extends}"><title>Site</title>{body}</Profile></Tailoring>'.encode()


async def content(manifest: Manifest, cache: Path, extra: bytes = b"", profile: str = "base") -> "Content":
    from stig_rhel9.content import ContentStore

    return await ContentStore(manifest, Path("/"), cache).get(profile, extra)


async def test_the_profile_selects_as_openscap_does(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    chosen = set((await content(manifest, tmp_path)).rules)
    # `manual` is on by default; a conflict, a missing requirement and a closed group each drop a rule.
    assert chosen == {"password_pass_min", "motd", "manual"}


async def test_all_texts_of_a_rule_reach_us_with_values(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    rule = (await content(manifest, tmp_path)).rule(f"{PREFIX}_rule_password_pass_min")
    assert rule.id == "password_pass_min"
    assert rule.title == "Passwords must pass a length check"
    assert rule.severity == "high"
    assert rule.category == "Accounts and access"
    assert rule.description == "Set minlen to 15:\nminlen = 15"
    assert rule.check_text == "Run grep.\nDoes it pass?"
    assert rule.references == {"CCE": ["CCE-00001-1"], "CCI": ["CCI-000205"], "SRG": ["SRG-OS-000078-GPOS-00046"]}
    fix = rule.fixes["bash"]
    assert fix.text == 'var=\'15\'\nword="a & b"\n[ 1 -lt 2 ] && echo "minlen = $var" >> /etc/demo\n'
    assert (fix.reboot, fix.disruption) == (True, "low")


async def test_the_cut_down_oval_has_what_the_rule_needs_and_no_more(
    skill: Skill, manifest: Manifest, tmp_path: Path
) -> None:
    oval = (await content(manifest, tmp_path)).oval("password_pass_min").decode()
    for needed in ("t-pass:def:1", "t-motd:def:1", "t-os:def:1", "t-container:def:1", "constant_variable", ">15<"):
        assert needed in oval
    for unneeded in ("t-unused:tst:1", "t-kernel:def:1", "external_variable", "prose"):
        assert unneeded not in oval
    # OpenSCAP 1.3.7 crashes on two tags side by side.
    assert "><" not in oval


async def test_a_tailoring_file_changes_selection_and_values(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    extra = tailoring(
        f'<select idref="{PREFIX}_rule_motd" selected="false"/><set-value idref="{PREFIX}_value_min">20</set-value>'
    )
    tailored = await content(manifest, tmp_path, extra)
    # With motd gone, the rule that conflicts with it is back.
    assert set(tailored.rules) == {"password_pass_min", "fights_motd", "manual"}
    assert "var='20'" in tailored.rule("password_pass_min").fixes["bash"].text
    assert ">20<" in tailored.oval("password_pass_min").decode()
    plain = await content(manifest, tmp_path)
    assert "var='15'" in plain.rule("password_pass_min").fixes["bash"].text


@pytest.mark.parametrize(
    "extra",
    [
        b"\x00",
        b"<Tailoring",
        b"<other/>",
        f"<Tailoring {NS}/>".encode(),
        tailoring(f'<select idref="{PREFIX}_rule_nowhere" selected="true"/>'),
        tailoring("", extends="nowhere"),
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + tailoring(""),
    ],
)
async def test_a_broken_tailoring_file_names_its_field(
    skill: Skill, manifest: Manifest, tmp_path: Path, extra: bytes
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await content(manifest, tmp_path, extra)
    assert caught.value.field == "tailoring"
    assert not [name for name in os.listdir(tmp_path) if not name.startswith(".")]


async def test_an_unknown_profile_names_those_there_are(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="base") as caught:
        await content(manifest, tmp_path, profile="nope")
    assert caught.value.field == "profile"


async def test_a_missing_datastream_says_what_to_install(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    gone = manifest.model_copy(update={"settings": {"datastream": ["/no/such/ds.xml"]}})
    with pytest.raises(FailedPrecondition, match="ssg-nondebian"):
        await content(gone, tmp_path)


async def test_the_second_look_compiles_nothing(
    skill: Skill, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await content(manifest, tmp_path)
    monkeypatch.setattr("asyncio.create_subprocess_exec", None)
    assert (await content(manifest, tmp_path)).folder == first.folder


async def test_of_two_services_one_compiles_and_the_other_waits(
    skill: Skill, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = asyncio.create_subprocess_exec

    async def counted(*words: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(words)
        return await start(*words, **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", counted)
    one, other = await asyncio.gather(content(manifest, tmp_path), content(manifest, tmp_path))
    assert one.folder == other.folder
    assert len(started) == 1


async def test_a_compiler_that_was_killed_is_told_by_its_signal(
    skill: Skill, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def killed(*_: str, **options: Any) -> asyncio.subprocess.Process:
        return await start("sh", "-c", "kill -9 $$", **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", killed)
    with pytest.raises(FailedPrecondition, match="was ended by SIGKILL: without a word"):
        await content(manifest, tmp_path)


def test_an_unknown_rule_is_an_error_of_the_caller(skill: Skill, manifest: Manifest, tmp_path: Path) -> None:
    from stig_rhel9 import compile as compiler
    from stig_rhel9.content import Content

    datastream = Path(str(manifest.settings["datastream"][0]))  # type: ignore[index]
    assert compiler.main([str(datastream), "base", str(tmp_path / "out")]) == 0
    with pytest.raises(InvalidArgument):
        Content(tmp_path / "out", datastream, b"").rule("../../etc/passwd")


def test_the_engine_knows_no_word_of_this_skill() -> None:
    engine = Path(__file__).parents[3] / "libs" / "core" / "src"
    words = r"\b(stig|xccdf|oscap|openscap|oval)\b"
    found = subprocess.run(
        ["grep", "-rniE", words, "--include=*.py", str(engine)], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    assert found.returncode == 1
