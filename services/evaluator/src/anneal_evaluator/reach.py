"""Reaches a target as a run would, and says for each step whether it held and how to mend it."""

from anneal.evaluator.v1 import evaluator_pb2 as pb
from anneal_runtime.errors import AnnealError, HostKeyChanged
from anneal_skillkit.bench import Workbench
from anneal_skillkit.interfaces import TargetSession

_SUDO_MEND = "give the login passwordless sudo on the target, or log in as root"


async def reach_checks(bench: Workbench, target: str, skill: str) -> list[pb.Check]:
    """Registered, host key and login, sudo, and the skill's own needs where one is named. Raises NotFound."""
    access = await bench.access(target)
    where = f"{access.user}@{access.host}:{access.port}"
    checks = [pb.Check(name="registered", ok=True, detail=f"{access.driver} {where}")]
    try:
        session = await bench.fresh_session(target)
    except HostKeyChanged as e:
        mend = (
            "if the change is yours: anneal target remove and add it again with the new key; else find out who did it"
        )
        return [*checks, pb.Check(name="host key", ok=False, detail=str(e), mend=mend)]
    except AnnealError as e:
        return [*checks, pb.Check(name="login", ok=False, detail=str(e), mend=f"try: ssh -i {access.key_path} {where}")]
    checks.append(pb.Check(name="login", ok=True, detail="host key matches, key accepted"))
    try:
        checks.append(await _sudo(session))
        if skill:
            checks.extend(await _tools(bench, session, skill))
    except AnnealError as e:
        checks.append(pb.Check(name="session", ok=False, detail=str(e), mend="the connection was lost; try again"))
    finally:
        await session.close()
    word = "yes: a failed fix is brought back whole" if access.can_snapshot else "no: only fixes with an undo may run"
    checks.append(pb.Check(name="snapshots", ok=True, detail=word))
    return checks


async def _sudo(session: TargetSession) -> pb.Check:
    done = await session.run(["true"], timeout_s=15)
    detail = "works" if done.exit_code == 0 else done.stderr.decode(errors="replace").strip()[:200]
    return pb.Check(name="sudo", ok=done.exit_code == 0, detail=detail, mend="" if done.exit_code == 0 else _SUDO_MEND)


async def _tools(bench: Workbench, session: TargetSession, skill: str) -> list[pb.Check]:
    found = []
    for tool in bench.skill(skill).manifest.target_tools:
        done = await session.run(["sh", "-c", 'command -v -- "$1"', "sh", tool], timeout_s=15)
        ok = done.exit_code == 0
        mend = "" if ok else f"install the package that brings {tool} on the target"
        found.append(
            pb.Check(name=f"tool {tool}", ok=ok, detail=done.stdout.decode(errors="replace").strip(), mend=mend)
        )
    return found
