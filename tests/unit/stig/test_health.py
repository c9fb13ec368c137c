"""Health is what the machine says; where systemd says nothing, nothing is taken for well."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anneal_contracts.facts import Health
from anneal_evaluator.domain import worse
from anneal_skillkit.interfaces import Context, ExecResult, TargetSession
from anneal_skillkit.loader import Skill, load_skill

SCRATCH = Path(__file__).parents[2] / "support" / "skills" / "scratch"


class Here:
    """A session to this machine, with a systemctl of the test's."""

    def __init__(self, programs: Path) -> None:
        self._environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    async def run(self, argv: Sequence[str], **_: Any) -> ExecResult:
        child = await asyncio.create_subprocess_exec(*argv, env=self._environ, stdout=PIPE, stderr=PIPE)
        out, err = await child.communicate()
        return ExecResult(exit_code=child.returncode or 0, stdout=out, stderr=err)


@pytest.fixture(params=["stig", "scratch"])
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    skill: Skill = request.getfixturevalue("skill") if request.param == "stig" else load_skill(SCRATCH, cache=tmp_path)
    return skill.runtime.evaluator


async def health(judge: Any, programs: Path, systemctl: str, *, sudo: str = "exit 0", uid: int = 1000) -> Health:
    """What is said of a machine whose systemctl and sudo are these scripts; crond is a mission service."""
    for program, text in {"sudo": sudo, "systemctl": systemctl, "id": f"echo {uid}"}.items():
        (programs / program).write_text(f"#!/bin/sh\n{text}\n")
        (programs / program).chmod(0o755)
    ctx = SimpleNamespace(mission_services=("crond",))
    told: Health = await judge.health(cast(Context, ctx), cast(TargetSession, Here(programs)))
    return told


async def test_a_machine_whose_systemd_no_longer_answers_is_worse_than_before(judge: Any, tmp_path: Path) -> None:
    well = await health(judge, tmp_path, "exit 0")
    assert (well.privileged, well.failed_units, well.dead_services) == (True, (), ())
    mute = await health(judge, tmp_path, '[ "$1" = is-active ]')
    assert worse(well, mute) == ("service systemd no longer answers",)
    assert worse(mute, mute) == ()


async def test_failed_units_and_dead_services_are_named(judge: Any, tmp_path: Path) -> None:
    units = "a.service loaded failed failed A\nb.mount loaded failed failed B"
    sick = await health(judge, tmp_path, f'[ "$1" = list-units ] && echo "{units}"')
    assert (sick.failed_units, sick.dead_services) == (("a.service", "b.mount"), ("crond",))


async def test_a_login_that_lost_sudo_is_worse_than_before(judge: Any, tmp_path: Path) -> None:
    well, lost = await health(judge, tmp_path, "exit 0"), await health(judge, tmp_path, "exit 0", sudo="exit 1")
    assert worse(well, lost) == ("sudo no longer works",)


async def test_root_needs_no_sudo(skill: Skill, tmp_path: Path) -> None:
    assert (await health(skill.runtime.evaluator, tmp_path, "exit 0", sudo="exit 1", uid=0)).privileged
