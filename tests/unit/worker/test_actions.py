"""Applying again what a killed worker began: what still runs is waited for, what was cut off is told as such."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anneal_contracts.facts import Action, FixSource
from anneal_contracts.work import Applied, Apply
from anneal_runtime.errors import StaleToken, TargetUnreachable
from anneal_runtime.testing import eventually
from anneal_skillkit.bench import Workbench
from anneal_skillkit.effects import EffectInterrupted, run_effect
from anneal_skillkit.interfaces import Context, ExecResult, TargetSession
from anneal_skillkit.ssh import connect
from anneal_worker.actions import Actions

from tests.unit.skillkit.conftest import SshServer
from tests.unit.skillkit.conftest import ssh_server as ssh_server

KEY = "run-1_item_attempt1"


class Bench:
    """The bench of a worker that finds the effect begun by a predecessor: a real session, a ledger that takes notes."""

    def __init__(self, session: TargetSession) -> None:
        self.finished: list[tuple[str, int]] = []
        self.checkpoint = self
        self._ctx = SimpleNamespace(session=session)

    async def BeginEffect(self, _: Any) -> Any:
        return SimpleNamespace(begun_before=True)

    async def FinishEffect(self, request: Any) -> None:
        self.finished.append((request.state, request.exit_code))

    async def context(self, _: Apply, *, known: bool = False) -> Any:
        return self._ctx

    def skill(self, _: str) -> Any:
        return SimpleNamespace(runtime=SimpleNamespace(executor=self))

    async def apply(self, ctx: Context, action: Action, effect_key: str) -> ExecResult:
        return await run_effect(ctx.session, effect_key, action.content.encode(), timeout_s=action.timeout_s)


def apply_command(script: str) -> Apply:
    return Apply(
        command_id="c-1",
        run_id="run-1",
        skill="s",
        target="box",
        deadline=2e9,
        item_id="item",
        attempt=1,
        action=Action(source=FixSource.VENDOR, kind="bash", title="t", content=script, timeout_s=10),
        effect_key=KEY,
    )


async def _begun(ssh_server: SshServer, script: str, shown: Path) -> asyncio.Task[ExecResult]:
    """A predecessor that has begun the script."""
    session = await connect(ssh_server.access)
    running = asyncio.create_task(run_effect(session, KEY, script.encode(), timeout_s=10))
    await eventually(shown.exists)
    return running


async def _again(ssh_server: SshServer, script: str) -> tuple[Applied, list[tuple[str, int]]]:
    session = await connect(ssh_server.access)
    bench = Bench(session)
    applied = await Actions(cast(Workbench, bench)).apply(apply_command(script))
    await session.close()
    return applied, bench.finished


async def test_an_action_that_still_runs_is_waited_for_and_not_run_twice(ssh_server: SshServer, tmp_path: Path) -> None:
    script = f"echo x >>{tmp_path}/count; sleep 0.6; echo done; exit 3"
    running = await _begun(ssh_server, script, tmp_path / "count")
    applied, finished = await _again(ssh_server, script)
    assert (applied.state, applied.exit_code, applied.output) == ("applied", 3, "done\n")
    assert finished == [("applied", 3)]
    assert (tmp_path / "count").read_text() == "x\n"
    await running


async def test_an_action_that_was_cut_off_is_interrupted_and_not_run_again(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    script = f"echo $PPID >{tmp_path}/pid; echo x >>{tmp_path}/count; sleep 5"
    running = await _begun(ssh_server, script, tmp_path / "count")
    # The script's parent is `timeout`, whose group holds the script; the session's leader would note the end.
    timeout = int((tmp_path / "pid").read_text())
    os.killpg(os.getsid(timeout), signal.SIGKILL)
    os.killpg(os.getpgid(timeout), signal.SIGKILL)
    with pytest.raises(EffectInterrupted):
        await running
    applied, finished = await _again(ssh_server, script)
    assert (applied.state, finished) == ("interrupted", [])
    assert (tmp_path / "count").read_text() == "x\n"


class Refusing(Bench):
    """A ledger that refuses."""

    def __init__(self) -> None:
        super().__init__(cast(TargetSession, None))
        self.applied = False

    async def BeginEffect(self, _: Any) -> Any:
        raise StaleToken("another run has the target")

    async def apply(self, ctx: Context, action: Action, effect_key: str) -> ExecResult:
        self.applied = True
        raise AssertionError


async def test_who_may_not_change_the_target_does_not() -> None:
    bench = Refusing()
    with pytest.raises(StaleToken):
        await Actions(cast(Workbench, bench)).apply(apply_command("true"))
    assert not bench.applied


class Elsewhere(Bench):
    """A target that is not where it was; moved: it is somewhere else."""

    def __init__(self, session: TargetSession, *, moves: bool) -> None:
        super().__init__(session)
        self.moves = moves
        self.asked: list[bool] = []

    async def BeginEffect(self, _: Any) -> Any:
        return SimpleNamespace(begun_before=False)

    async def context(self, _: Apply, *, known: bool = False) -> Any:
        self.asked.append(known)
        if known:
            raise TargetUnreachable("no route")
        return self._ctx

    async def moved(self, _: Apply) -> bool:
        return self.moves

    async def access(self, _: str) -> Any:
        return SimpleNamespace(can_snapshot=True)

    async def drop_session(self, _: str) -> None: ...


@pytest.mark.parametrize(("moves", "state"), [(True, "applied"), (False, "unreachable")])
async def test_a_target_that_is_elsewhere_is_changed_there_and_one_that_is_away_is_lost(
    ssh_server: SshServer, moves: bool, state: str
) -> None:
    session = await connect(ssh_server.access)
    bench = Elsewhere(session, moves=moves)
    applied = await Actions(cast(Workbench, bench)).apply(apply_command("true"))
    await session.close()
    assert applied.state == state
    assert bench.asked == ([True, False] if moves else [True])
