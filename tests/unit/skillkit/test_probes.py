"""Probes: what a skill shows is told, what is never shown is refused on the target itself, and nothing is changed.

The program runs for real, through a real SSH server, as nobody on this machine.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from anneal_contracts.facts import Outcome, ProbeState
from anneal_runtime.errors import InvalidArgument
from anneal_skillkit import probes
from anneal_skillkit.interfaces import Context, Judgement, TargetSession
from anneal_skillkit.loader import Skill
from anneal_skillkit.manifest import Manifest, Probes
from anneal_skillkit.probes import ANSWER_LIMIT, NEVER, Arguments, ProbeAnswer, ProbeTool, ask, kit_tools, probe_tools
from anneal_skillkit.ssh import connect

from tests.unit.skillkit.conftest import SshServer
from tests.unit.skillkit.conftest import ssh_server as ssh_server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")


class Checker:
    async def evaluate(self, ctx: Context, item_id: str) -> Judgement:
        return Judgement(outcome=Outcome.FAIL, evidence=f"{item_id}: expected password = hunter2, found nothing")


@pytest_asyncio.fixture
async def session(ssh_server: SshServer) -> AsyncIterator[TargetSession]:
    opened = await connect(ssh_server.access)
    yield opened
    await opened.close()


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A folder that the skill shows, with a file that only root may read."""
    folder = tmp_path / "shown"
    (folder / "sub.d").mkdir(parents=True)
    (folder / "main.conf").write_text("Port 22\nPermitRootLogin yes\n")
    (folder / "main.conf").chmod(0o600)
    (folder / "sub.d" / "50 site.conf").write_text("PermitRootLogin yes # later\n")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and str(path).startswith("/tmp/pytest"):
            path.chmod(0o755)
    return folder


async def asked(session: TargetSession, shown: Path, tool: str, **arguments: str) -> ProbeAnswer:
    ctx = cast(Context, SimpleNamespace(session=session))
    tools = kit_tools([f"{shown}/**"], cast(Any, Checker()))
    return await ask(tools[tool], ctx, "rule_1", arguments)


async def test_a_file_that_only_root_may_read_is_told_with_mode_and_owner(session: TargetSession, shown: Path) -> None:
    answer = await asked(session, shown, "read_file", path=f"{shown}/sub.d/../main.conf")
    assert answer.state is ProbeState.ANSWERED
    assert answer.text == f"{shown}/main.conf: mode 600, owner root:root, 28 bytes\nPort 22\nPermitRootLogin yes\n"


async def test_a_folder_is_told_with_the_modes_of_its_entries(session: TargetSession, shown: Path) -> None:
    (shown / "link.conf").symlink_to("main.conf")
    answer = await asked(session, shown, "list_folder", path=str(shown))
    head, *entries = answer.text.splitlines()
    assert head.startswith(f"{shown}: mode 755")
    assert [e.split(" ", 3)[3] for e in entries] == ["link.conf -> main.conf", "main.conf", "sub.d"]
    assert entries[1].startswith("-rw------- root:root 28 ")


async def test_a_text_is_found_wherever_it_stands_below_a_folder(session: TargetSession, shown: Path) -> None:
    answer = await asked(session, shown, "search_files", folder=str(shown), text="PermitRootLogin yes")
    assert sorted(answer.text.splitlines()) == [
        f"{shown}/main.conf:2:PermitRootLogin yes",
        f"{shown}/sub.d/50 site.conf:1:PermitRootLogin yes # later",
    ]
    nothing = await asked(session, shown, "search_files", folder=str(shown), text="[P]ermit.*")
    assert nothing.state is ProbeState.MISSING, "the text is literal"


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/etc/../etc/shadow-", "/root/.bashrc", "/proc/self/environ", "/dev/sda"]
)
async def test_what_is_never_shown_is_refused_even_if_a_manifest_shows_everything(
    session: TargetSession, path: str
) -> None:
    for tool, argument in (("read_file", "path"), ("list_folder", "path"), ("search_files", "folder")):
        more = {"text": "root"} if argument == "folder" else {}
        answer = await asked(session, Path("/"), tool, **{argument: path}, **more)
        assert (answer.state, answer.text) == (ProbeState.DENIED, "")
        assert "may not be shown" in answer.detail


async def test_a_path_outside_of_what_the_skill_shows_is_refused_and_not_said_to_be_missing(
    session: TargetSession, shown: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").write_text("x")
    for path in (f"{tmp_path}/other", f"{tmp_path}/no such", f"{shown}/../other", f"{shown}.else"):
        assert (await asked(session, shown, "read_file", path=path)).state is ProbeState.DENIED
    assert (await asked(session, shown, "read_file", path=f"{shown}/absent")).state is ProbeState.MISSING


async def test_a_link_that_leads_out_is_refused_wherever_it_stands(
    session: TargetSession, shown: Path, tmp_path: Path
) -> None:
    (shown / "innocent.conf").symlink_to("/etc/shadow")
    (shown / "etc").symlink_to("/etc")
    for path in (f"{shown}/innocent.conf", f"{shown}/etc/shadow", f"{shown}/etc/passwd"):
        answer = await asked(session, shown, "read_file", path=path)
        assert (answer.state, answer.text) == (ProbeState.DENIED, "")
    assert (await asked(session, shown, "list_folder", path=f"{shown}/etc")).state is ProbeState.DENIED
    found = await asked(session, shown, "search_files", folder=str(shown), text="root:")
    assert found.state is ProbeState.MISSING, "a search follows no link"


async def test_a_second_name_of_a_secret_file_is_refused(
    session: TargetSession, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s3cr3t")
    os.link(tmp_path / "secret", shown / "harmless.conf")
    assert "s3cr3t" in (await asked(session, shown, "read_file", path=f"{shown}/harmless.conf")).text
    monkeypatch.setattr(probes, "NEVER", (*NEVER, f"{tmp_path}/secret"))
    assert (await asked(session, shown, "read_file", path=f"{shown}/harmless.conf")).state is ProbeState.DENIED


@pytest.mark.parametrize("name", ["id_rsa.key", "private/x", "a/.ssh/authorized_keys"])
async def test_a_search_skips_what_is_never_shown(session: TargetSession, shown: Path, name: str) -> None:
    secret = shown / name
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("PermitRootLogin yes\n")
    answer = await asked(session, shown, "search_files", folder=str(shown), text="PermitRootLogin")
    assert name not in answer.text
    assert "main.conf" in answer.text


async def test_what_is_no_plain_file_is_not_opened(session: TargetSession, shown: Path) -> None:
    os.mkfifo(shown / "pipe")
    for path in (f"{shown}/pipe", f"{shown}/sub.d"):
        answer = await asked(session, shown, "read_file", path=path)
        assert (answer.state, answer.text) == (ProbeState.FAILED, "")


async def test_an_argument_is_never_read_as_shell_or_as_an_option(session: TargetSession, shown: Path) -> None:
    trap = shown / "trap"
    for path in (f"{shown}/$(touch {trap})", f"{shown}/x; touch {trap}", f"{shown}/`touch {trap}`", f"{shown}/* "):
        await asked(session, shown, "read_file", path=path)
        await asked(session, shown, "list_folder", path=path)
    await asked(session, shown, "search_files", folder=str(shown), text=f"-e x -f /etc/shadow $(touch {trap})")
    assert not trap.exists()
    for tool, name in (("query_package", "--eval=%{lua:x}"), ("query_unit", "--root=/x"), ("query_package", "a b")):
        assert (await asked(session, shown, tool, name=name)).state is ProbeState.FAILED


async def test_the_program_runs_as_nobody_and_can_write_nothing(
    session: TargetSession, shown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is replaced by one that tries: what stops it is the kernel."""
    assert "\nulimit -f 0\n" in probes._PROGRAM
    in_folder = f"echo x >{shown}/new; echo x >>{shown}/main.conf; rm {shown}/main.conf"
    tries = f"({in_folder}; echo x >/tmp/anneal-probe) 2>/dev/null"
    attempt = f"ulimit -f 0; id -u; grep CapEff /proc/self/status; {tries}; cat /tmp/anneal-probe; rm /tmp/anneal-probe"
    monkeypatch.setattr(probes, "_PROGRAM", attempt)
    for reading, rights in ((True, "0000000000000004"), (False, "0000000000000000")):
        said = await probes.look(session, "x", shown=[], reading=reading)
        assert said.splitlines() == ["65534", f"CapEff:\t{rights}"]
    assert sorted(os.listdir(shown)) == ["main.conf", "sub.d"]
    assert (await session.read(f"{shown}/main.conf")).endswith(b"PermitRootLogin yes\n")


async def test_a_long_answer_is_cut_and_secrets_are_gone(session: TargetSession, shown: Path) -> None:
    (shown / "big").write_text("password = hunter2\n" + "x" * (3 * ANSWER_LIMIT))
    answer = await asked(session, shown, "read_file", path=f"{shown}/big")
    assert len(answer.text) <= ANSWER_LIMIT + 60
    assert "hunter2" not in answer.text
    assert answer.redactions == {"secret value": 1}
    check = await asked(session, shown, "show_check")
    assert check.text == ("The check says: fail.\nrule_1: expected password = [redacted: secret value] found nothing")


async def test_packages_and_units_are_told_and_unknown_ones_are_missing(session: TargetSession, shown: Path) -> None:
    assert "installed" in (await asked(session, shown, "query_package", name="bash")).text
    assert (await asked(session, shown, "query_package", name="no-such-package-x")).state is ProbeState.MISSING


async def test_wrong_arguments_are_an_answer_that_names_the_field(session: TargetSession, shown: Path) -> None:
    for arguments in ({}, {"path": "relative"}, {"path": "/a\nb"}, {"path": "/a", "mode": "w"}):
        answer = await asked(session, shown, "read_file", **arguments)
        assert answer.state is ProbeState.FAILED
        assert answer.detail.split(":")[0] in ("path", "mode")


def _skill(probing: Probes, own: list[ProbeTool]) -> Skill:
    manifest = cast(Manifest, SimpleNamespace(probes=probing, name="s"))
    runtime = SimpleNamespace(evaluator=Checker(), probes=lambda: own)
    return Skill(manifest=manifest, runtime=cast(Any, runtime), folder=Path("/"))


async def test_a_skill_has_the_probes_that_it_names_and_its_own_and_no_two_of_one_name() -> None:
    async def answer(ctx: Context, item_id: str, a: Arguments) -> str:
        return "42"

    own = ProbeTool(name="query_answer", description="d", arguments=Arguments, answer=answer)
    tools = probe_tools(_skill(Probes(tools=("show_check",)), [own]))
    assert set(tools) == {"show_check", "query_answer"}
    with pytest.raises(InvalidArgument, match="share a name"):
        probe_tools(_skill(Probes(), [own, own]))


def test_a_manifest_that_reads_files_says_which() -> None:
    with pytest.raises(ValueError, match="paths"):
        Probes(tools=("read_file",))
    for glob in ("etc/**", "/", "/etc/[ab]", "/etc/a b", "/etc/$x'"):
        with pytest.raises(ValueError, match="paths"):
            Probes(tools=("read_file",), paths=(glob,))
