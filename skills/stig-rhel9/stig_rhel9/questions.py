"""What a model may ask about an EL9 host beside the kit's questions: settings as they are in force, and mounts.

Each is one program with fixed options, by an argument list; it changes nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from anneal_runtime.errors import FailedPrecondition
from anneal_skillkit.interfaces import Context, ExecResult
from anneal_skillkit.probes import AbsolutePath, Arguments, NothingThere, ProbeTool, look
from pydantic import Field

_TIMEOUT_S: Final = 10.0
_LIMIT: Final = 64 * 1024


class SettingArguments(Arguments):
    of: Literal["sshd", "sysctl"] = Field(description='"sshd" or "sysctl".')
    name: Annotated[str, Field(max_length=120, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] = Field(
        description="Name of the setting, such as PermitRootLogin or net.ipv4.ip_forward."
    )


class MountArguments(Arguments):
    path: AbsolutePath = Field(description="Absolute path.")


async def effective_setting(ctx: Context, _: str, asked: SettingArguments) -> str:
    """A setting as sshd or the kernel has it, whichever file it came from."""
    if asked.of == "sysctl":
        path = f"/proc/sys/{asked.name.replace('.', '/')}"
        told = await look(ctx.session, "read_file", path, shown=["/proc/sys/**"])
        return f"{asked.name} = {told.partition(chr(10))[2].strip()}"
    # It reads the host keys, which only root may: the options are fixed, and it only prints.
    done = await ctx.session.run(["sshd", "-T"], timeout_s=_TIMEOUT_S, limit=_LIMIT)
    if done.exit_code != 0:
        raise FailedPrecondition(f"sshd does not accept its configuration: {_text(done)[-300:]}")
    wanted = asked.name.lower()
    lines = [line for line in _text(done).splitlines() if line.split(" ", 1)[0].lower() == wanted]
    if not lines:
        raise NothingThere(f"sshd has no setting {asked.name}")
    return "\n".join(lines)


async def mount_of(ctx: Context, _: str, asked: MountArguments) -> str:
    """The mount that a path lies on, with its options."""
    command = ["findmnt", "--noheadings", "--output", "TARGET,SOURCE,FSTYPE,OPTIONS", "--target", asked.path]
    done = await ctx.session.run(command, sudo=False, timeout_s=_TIMEOUT_S, limit=_LIMIT)
    if done.exit_code != 0:
        raise NothingThere(f"no mount of {asked.path}")
    return _text(done)


def own_probes() -> Sequence[ProbeTool]:
    """The skill's own questions."""
    return (
        ProbeTool(
            name="effective_setting",
            description="A setting of sshd or a kernel parameter as it is in force now, whichever file it came from.",
            arguments=SettingArguments,
            answer=effective_setting,
        ),
        ProbeTool(
            name="mount_of",
            description="The mount that a path lies on: mount point, source, type, options.",
            arguments=MountArguments,
            answer=mount_of,
        ),
    )


def _text(done: ExecResult) -> str:
    return (done.stdout + done.stderr).decode("utf-8", "replace").strip()
