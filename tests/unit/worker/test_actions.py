"""Applying on a real session, beside a ledger that takes notes: what a killed worker left is read, never repeated."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anneal.checkpoint.v1 import checkpoint_pb2 as cp
from anneal_contracts.facts import Action, FixSource
from anneal_contracts.work import Applied, Apply
from anneal_runtime.errors import StaleToken, TargetUnreachable
from anneal_runtime.testing import eventually
from anneal_skillkit import effects
from anneal_skillkit.bench import Workbench
from anneal_skillkit.effects import EffectInterrupted, Fenced, run_effect
from anneal_skillkit.interfaces import Context, ExecResult, Guard, Permit, TargetSession
from anneal_skillkit.ssh import connect
from anneal_worker.actions import Actions
from google.protobuf.duration_pb2 import Duration

from tests.support.permits import permit_for
from tests.unit.skillkit.conftest import SshServer
from tests.unit.skillkit.conftest import ssh_server as ssh_server

KEY, UNDO_KEY = "run-1_item_attempt1", "run-1_item_attempt1_undo"


@dataclass
class Bench:
    """The bench of a worker: a real session, and a ledger that takes notes of what it is told."""

    session: TargetSession
    begun_before: bool = True
    lease_s: int = 60
    # The target does not answer so many times.
    away: int = 0
    told: list[tuple[str, int]] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)
    # What a dropped session is replaced by.
    spare: TargetSession | None = None
    going_on: list[Coroutine[Any, Any, None]] = field(default_factory=list)

    @property
    def checkpoint(self) -> "Bench":
        return self

    @property
    def clock(self) -> Any:
        return SimpleNamespace(now=time.time)

    async def BeginEffect(self, _: Any) -> cp.BeginEffectResponse:
        left = Duration(seconds=self.lease_s)
        return cp.BeginEffectResponse(begun_before=self.begun_before, ledger="tests", lease_left=left)

    async def StartEffect(self, _: Any) -> None:
        self.told.append(("started", 0))

    async def FinishEffect(self, request: cp.FinishEffectRequest) -> None:
        self.told.append((request.state, request.exit_code))
        self.details.append(request.detail)

    async def context(self, _: Apply, *, known: bool) -> Any:
        self.known.append(known)
        if self.away:
            self.away -= 1
            raise TargetUnreachable("box does not answer")
        return SimpleNamespace(session=self.session)

    async def drop_session(self, _: str) -> None:
        self.session = self.spare or self.session

    async def access(self, _: str) -> Any:
        return SimpleNamespace(can_snapshot=False)

    def beside(self, _: Apply, work: Coroutine[Any, Any, None]) -> None:
        self.going_on.append(work)

    def skill(self, _: str) -> Any:
        return SimpleNamespace(runtime=SimpleNamespace(executor=self))

    async def apply(self, ctx: Context, action: Action, permit: Permit) -> ExecResult:
        return await run_effect(ctx.session, permit, action.content.encode(), timeout_s=action.timeout_s)


def apply_command(script: str, **changes: Any) -> Apply:
    base: dict[str, Any] = {
        "command_id": "c-1",
        "run_id": "run-1",
        "skill": "s",
        "target": "box",
        "deadline": time.time() + 60,
        "item_id": "item",
        "attempt": 1,
        "action": Action(source=FixSource.VENDOR, kind="bash", title="t", content=script, timeout_s=10),
        "effect_key": KEY,
        "fencing_token": 1,
        "command_seq": 1,
    }
    return Apply(**{**base, **changes})


def undo_command(script: str, **changes: Any) -> Apply:
    return apply_command(script, effect_key=UNDO_KEY, undoes=KEY, command_seq=2, **changes)


async def carried_out(bench: Bench, command: Apply) -> Applied:
    applied = await Actions(cast(Workbench, bench)).apply(command)
    for work in bench.going_on:
        await work
    return applied


async def _begun(ssh_server: SshServer, script: str, shown: Path) -> asyncio.Task[ExecResult]:
    """A predecessor that has begun the script."""
    session = await connect(ssh_server.access)
    permit = await permit_for(session, KEY)
    running = asyncio.create_task(run_effect(session, permit, script.encode(), timeout_s=10))
    await eventually(shown.exists)
    return running


async def _cut_off(ssh_server: SshServer, tmp_path: Path) -> str:
    """A predecessor whose script was cut off; gives the script."""
    script = f"echo $PPID >{tmp_path}/pid; echo x >>{tmp_path}/count; sleep 5"
    running = await _begun(ssh_server, script, tmp_path / "count")
    # The script's parent is `timeout`, whose group holds the script; the session's leader would note the end.
    timeout = int((tmp_path / "pid").read_text())
    os.killpg(os.getsid(timeout), signal.SIGKILL)
    os.killpg(os.getpgid(timeout), signal.SIGKILL)
    with pytest.raises(EffectInterrupted):
        await running
    return script


async def test_an_action_that_still_runs_is_waited_for_and_not_run_twice(ssh_server: SshServer, tmp_path: Path) -> None:
    script = f"echo x >>{tmp_path}/count; sleep 0.6; echo done; exit 3"
    running = await _begun(ssh_server, script, tmp_path / "count")
    bench = Bench(await connect(ssh_server.access))
    applied = await carried_out(bench, apply_command(script))
    assert (applied.state, applied.exit_code, applied.output) == ("applied", 3, "done\n")
    assert bench.told == [("started", 0), ("applied", 3)]
    assert (tmp_path / "count").read_text() == "x\n"
    await running
    await bench.session.close()


async def test_an_action_that_was_cut_off_is_interrupted_and_not_run_again(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    script = await _cut_off(ssh_server, tmp_path)
    bench = Bench(await connect(ssh_server.access))
    applied = await carried_out(bench, apply_command(script))
    assert (applied.state, bench.told) == ("interrupted", [("started", 0)])
    assert (tmp_path / "count").read_text() == "x\n"
    await bench.session.close()


async def test_an_action_that_ended_is_recorded_and_not_run_again(ssh_server: SshServer, tmp_path: Path) -> None:
    script = f"echo x >>{tmp_path}/count; exit 4"
    await (await _begun(ssh_server, script, tmp_path / "count"))
    bench = Bench(await connect(ssh_server.access))
    applied = await carried_out(bench, apply_command(script))
    assert (applied.state, applied.exit_code, bench.told) == ("applied", 4, [("applied", 4)])
    assert (tmp_path / "count").read_text() == "x\n"
    await bench.session.close()


async def test_a_quick_action_goes_from_intended_to_applied_and_a_slow_one_is_seen_at_work(
    ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await connect(ssh_server.access)
    slow = Bench(session, begun_before=False)
    await carried_out(slow, apply_command("sleep 0.3"))
    assert slow.told == [("started", 0), ("applied", 0)]
    monkeypatch.setattr("anneal_worker.actions._QUICK_S", 5)
    quick = Bench(session, begun_before=False)
    await carried_out(quick, apply_command("true", effect_key=KEY + "b"))
    assert quick.told == [("applied", 0)]
    await session.close()


@pytest.mark.parametrize("what", ["lease", "deadline"])
async def test_leave_ends_with_the_lease_and_with_the_command(ssh_server: SshServer, tmp_path: Path, what: str) -> None:
    bench = Bench(await connect(ssh_server.access), begun_before=False, lease_s=0 if what == "lease" else 60)
    command = apply_command(f"touch {tmp_path}/ran", deadline=time.time() + (0 if what == "deadline" else 60))
    await asyncio.sleep(0.02)
    with pytest.raises(Fenced, match="has run out"):
        await carried_out(bench, command)
    assert not (tmp_path / "ran").exists()
    assert bench.told in ([], [("started", 0)])
    await bench.session.close()


async def test_an_undo_of_what_never_began_runs_nothing_and_is_applied(ssh_server: SshServer, tmp_path: Path) -> None:
    bench = Bench(await connect(ssh_server.access), begun_before=False)
    applied = await carried_out(bench, undo_command(f"touch {tmp_path}/undone"))
    assert (applied.state, applied.exit_code, bench.told[-1]) == ("applied", 0, ("applied", 0))
    assert not (tmp_path / "undone").exists()
    await bench.session.close()


async def test_an_undo_of_what_was_cut_off_runs(ssh_server: SshServer, tmp_path: Path) -> None:
    await _cut_off(ssh_server, tmp_path)
    bench = Bench(await connect(ssh_server.access), begun_before=False)
    applied = await carried_out(bench, undo_command(f"touch {tmp_path}/undone"))
    assert (applied.state, applied.exit_code) == ("applied", 0)
    assert (tmp_path / "undone").exists()
    await bench.session.close()


async def test_an_undo_that_fails_names_the_effect_that_nobody_knows_any_more(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    await (await _begun(ssh_server, f"touch {tmp_path}/x", tmp_path / "x"))
    bench = Bench(await connect(ssh_server.access), begun_before=False)
    applied = await carried_out(bench, undo_command("exit 6"))
    assert applied.detail == f"effect {KEY[:12]} of item is unknown: the script that takes it back ended with 6"
    await bench.session.close()


async def test_an_undo_that_was_cut_off_is_unknown_and_not_tried_again(ssh_server: SshServer, tmp_path: Path) -> None:
    await (await _begun(ssh_server, f"touch {tmp_path}/x", tmp_path / "x"))
    folder = tmp_path / "effects" / UNDO_KEY
    folder.mkdir()
    (folder / "started").write_text("an earlier boot\n")
    bench = Bench(await connect(ssh_server.access))
    applied = await carried_out(bench, undo_command(f"touch {tmp_path}/undone"))
    assert applied.state == "interrupted"
    assert f"effect {KEY[:12]} of item is unknown" in applied.detail
    assert bench.told == [("unknown", 0)]
    assert not (tmp_path / "undone").exists()
    await bench.session.close()


async def test_an_undo_waits_for_a_target_that_may_come_back_by_itself_and_an_action_does_not(
    ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anneal_worker.actions._RETRY_S", 0.05)
    session = await connect(ssh_server.access)
    patient = Bench(session, begun_before=False, away=3)
    assert (await carried_out(patient, undo_command("true"))).state == "applied"
    with pytest.raises(TargetUnreachable):
        await carried_out(Bench(session, away=2), apply_command("true"))
    late = undo_command("true", deadline=time.time() + 5)
    with pytest.raises(TargetUnreachable, match=f"effect {KEY[:12]} of item is unknown: box does not answer"):
        await carried_out(Bench(session, away=2), late)
    await session.close()


@pytest.mark.parametrize(("undo_exit", "state"), [(0, "unreachable"), (5, "interrupted")])
async def test_what_the_timer_on_the_target_took_back_is_reported_as_such(
    ssh_server: SshServer, tmp_path: Path, undo_exit: int, state: str
) -> None:
    session = await connect(ssh_server.access)
    guard = Guard(undo=f"exit {undo_exit}".encode(), after_s=5, required=False)
    await run_effect(session, await permit_for(session, KEY, guard=guard), b"true", timeout_s=5)
    words = [f"state={effects.STATE_ROOT}", f"units={effects.UNITS_ROOT}", "undo_s=5", "limit=99"]
    await session.run(["bash", f"{tmp_path}/effects/{KEY}/wrapper", "deadman", KEY, effects.EFFECTS_ROOT, *words])
    bench = Bench(session)
    applied = await carried_out(bench, apply_command("true"))
    assert applied.state == state
    assert "dead-man timer" in applied.detail
    assert bench.told == ([("reverted", 0)] if undo_exit == 0 else [])
    await session.close()


class Refusing(Bench):
    """A ledger that refuses, and a target that cannot be reached."""

    async def BeginEffect(self, _: Any) -> cp.BeginEffectResponse:
        raise StaleToken("another run has the target")


async def test_who_may_not_change_the_target_hears_that_and_not_that_it_is_away() -> None:
    bench = Refusing(cast(TargetSession, None), away=9)
    with pytest.raises(StaleToken):
        await carried_out(bench, apply_command("true"))


async def test_a_session_that_died_unnoticed_is_replaced_before_the_ledger_is_asked(ssh_server: SshServer) -> None:
    dead = await connect(ssh_server.access)
    await dead.close()
    bench = Bench(dead, begun_before=False)
    bench.spare = await connect(ssh_server.access)
    assert (await carried_out(bench, apply_command("true"))).state == "applied"
    assert bench.known == [True, False]
    await bench.spare.close()


async def test_the_end_of_an_action_is_recorded_beside_its_result_and_that_of_an_undo_before_it(
    ssh_server: SshServer,
) -> None:
    session = await connect(ssh_server.access)
    for command, waits in ((apply_command("true"), True), (undo_command("true"), False)):
        bench = Bench(session, begun_before=False)
        await Actions(cast(Workbench, bench)).apply(command)
        assert (("applied", 0) in bench.told) is not waits
        for work in bench.going_on:
            await work
        assert bench.told[-1] == ("applied", 0)
    await session.close()


async def test_an_end_that_the_ledger_never_heard_of_is_told_by_a_late_delivery(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    await carried_out(Bench(session, begun_before=False), apply_command("exit 4"))
    late = Refusing(session)
    with pytest.raises(StaleToken):
        await carried_out(late, apply_command("exit 4"))
    assert late.told == [("applied", 4)]
    never = Refusing(session)
    with pytest.raises(StaleToken):
        await carried_out(never, apply_command("true", effect_key="run-1_item_attempt2"))
    assert never.told == []
    await session.close()
