"""`anneal bench`: what a run is held against. A fresh clone, the vendor's own tool alone, and two full scans."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anneal_cli.commands.lab import lab_folder
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.gateway import call, gateway_option
from anneal_cli.home import Home
from anneal_cli.output import as_data, emit_json, json_option

if TYPE_CHECKING:
    from anneal.common.v1 import common_pb2
    from anneal.evaluator.v1 import evaluator_pb2 as pb
    from anneal_contracts.facts import (
        Health,
        Outcome,
        ScoreCounts,
        TargetAccess,
    )
    from anneal_lab import Access
    from anneal_skillkit.interfaces import Context, ExecResult, SkillRuntime

    from anneal_cli.gateway import Gateway

SKILL = "stig-rhel9"
MACHINE = "baseline"


@click.group()
def bench() -> None:
    """Measures the peers that runs are held against."""


@bench.command("stig-baseline")
@click.option("--profile", default="", metavar="NAME", help="Profile of the content (default: the skill's).")
@click.option("--keep", is_flag=True, help="Keep the clone, to look at what the tool did to it.")
@gateway_option
@json_option
@click.pass_obj
def stig_baseline(home_dir: str | None, profile: str, keep: bool, gateway: str | None, as_json: bool) -> int:
    """Lets `oscap xccdf eval --remediate` loose on a fresh clone of the lab; reports then show both (1 to 2 min)."""
    from anneal_lab import Lab, LabError

    lab = Lab(lab_folder(home_dir))
    try:
        if MACHINE in lab.machines():  # left behind by a call that was killed
            lab.delete(MACHINE)
        reach = lab.clone("", MACHINE)
    except LabError as e:
        raise CliError(message=str(e), code=ExitCode.NOT_HELD, hint="anneal lab build") from e

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    async def work(gw: "Gateway") -> int:
        from anneal.evaluator.v1 import evaluator_pb2 as pb

        skills, cache = _skills_folder(), Home.of(home_dir).root / "cache" / "skills"
        baseline = await measure(skills / SKILL, cache, profile, _target(reach), lab.console(MACHINE), say)
        await gw.stub.RecordBaseline(pb.RecordBaselineRequest(idempotency_key=uuid.uuid4().hex, baseline=baseline))
        if as_json:
            emit_json(as_data(baseline))
        else:
            after = getattr(baseline.after, "pass")
            click.echo(f"{baseline.fixed} fixed, {after} pass, {baseline.after.fail} fail; {baseline.seconds:.0f} s")
            if not baseline.reachable_after:
                click.echo("after it nobody can log in and use sudo any more")
        return 0

    try:
        return call(home_dir, gateway, work)
    finally:
        if not keep:
            lab.delete(MACHINE)


def _skills_folder() -> Path:
    from anneal_cli.dev.plan import find_skills

    found = Path(os.environ["ANNEAL_SKILLS_DIR"]) if os.environ.get("ANNEAL_SKILLS_DIR") else find_skills()
    if found is None:
        hint = "run it from a checkout, or set ANNEAL_SKILLS_DIR"
        raise CliError(message="no skills folder found", code=ExitCode.USAGE, hint=hint)
    return found


def _target(a: "Access") -> "TargetAccess":
    from anneal_contracts.facts import TargetAccess

    return TargetAccess(
        name=MACHINE,
        driver="nspawn",
        host=a.host,
        port=a.port,
        user=a.user,
        key_path=str(a.key_path),
        host_key=a.host_key,
        can_snapshot=True,
    )


async def measure(
    folder: Path, cache: Path, profile: str, access: "TargetAccess", console: Sequence[str], say: Callable[[str], None]
) -> "pb.Baseline":
    """Scan, the skill's peer, health, scan again: the same scans that a run's score comes from.

    The last one goes in by the console: the peer may have locked out whoever comes by ssh.
    """
    from anneal_skillkit.interfaces import Context
    from anneal_skillkit.loader import load_skill
    from anneal_skillkit.ssh import connect

    skill = load_skill(folder, cache=cache)
    runtime, name = skill.runtime, profile or skill.manifest.default_profile
    session = await connect(access)
    ctx = Context(run_id="baseline", profile=name, tailoring=b"", session=session, cache=cache)
    try:
        say("full scan before (6 s)")
        found = await runtime.work_queue.discover(ctx, ())
        before = await _health(runtime, ctx)
        say("the vendor's own tool, alone (1 min)")
        began = time.monotonic()
        method = await runtime.baseline(ctx)
        took = time.monotonic() - began
        say("health, and full scan after (6 s)")
        after = await _health(runtime, ctx)
        scan = await runtime.evaluator.verify(replace(ctx, session=ConsoleSession(access, console)))
    finally:
        await session.close()
    baseline = _baseline(found.outcomes, scan.outcomes)
    baseline.skill, baseline.profile, baseline.fingerprint = skill.manifest.name, name, found.fingerprint
    baseline.before.CopyFrom(_counts(found.score))
    baseline.after.CopyFrom(_counts(scan.score))
    baseline.seconds, baseline.method = round(took, 1), method
    baseline.reachable_after = after.reachable and after.privileged
    baseline.newly_failed_units.extend(sorted(set(after.failed_units) - set(before.failed_units)))
    return baseline


class ConsoleSession:
    """A TargetSession from outside, by the lab's own console. Only what a scan needs."""

    def __init__(self, access: "TargetAccess", console: Sequence[str]) -> None:
        self.access = access
        self._console = console

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = True,
        timeout_s: float = 30.0,
        limit: int = 1 << 20,
    ) -> "ExecResult":
        """Runs a program as root. Raises DeadlineExceeded, or DataLoss for more output than limit."""
        from anneal_runtime.errors import DataLoss, DeadlineExceeded
        from anneal_skillkit.interfaces import ExecResult

        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._console, *argv, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate(stdin)
        except TimeoutError as e:
            process.kill()
            raise DeadlineExceeded(f"{argv[0]} took more than {timeout_s:g} s") from e
        if len(out) > limit:
            raise DataLoss(f"{argv[0]} wrote more than {limit} bytes")
        return ExecResult(exit_code=process.returncode or 0, stdout=out, stderr=err)

    async def read(self, path: str, *, limit: int = 1 << 24) -> bytes:
        """Reads a file as root."""
        return (await self.run(["cat", "--", path], limit=limit)).stdout

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Writes a file as root."""
        await self.run(["install", "-m", f"{mode:o}", "/dev/stdin", path], stdin=data)

    async def fresh(self) -> "ConsoleSession":
        """The console needs no login."""
        return self

    async def close(self) -> None:
        """Nothing is held open."""


async def _health(runtime: "SkillRuntime", ctx: "Context") -> "Health":
    from anneal_contracts.facts import Health
    from anneal_runtime.errors import AnnealError

    try:
        canary = await ctx.session.fresh()
    except AnnealError as e:
        return Health(reachable=False, detail=str(e))
    try:
        return await runtime.evaluator.health(ctx, canary)
    finally:
        await canary.close()


def _baseline(before: "Mapping[str, Outcome]", after: "Mapping[str, Outcome]") -> "pb.Baseline":
    from anneal.evaluator.v1 import evaluator_pb2 as pb

    fixed = sum(1 for i, o in before.items() if o in ("fail", "error") and after.get(i) == "pass")
    regressed = sum(1 for i, o in before.items() if o == "pass" and after.get(i) in ("fail", "error"))
    return pb.Baseline(fixed=fixed, regressed=regressed)


def _counts(score: "ScoreCounts") -> "common_pb2.ScoreCounts":
    from anneal.common.v1 import common_pb2

    rest = score.model_dump(by_alias=True)
    return common_pb2.ScoreCounts(**rest)
