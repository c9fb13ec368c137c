"""Probes: typed, read-only questions that a model may ask about a target before it proposes anything.

Nothing of the model's gets near a shell line: a question is a tool of a fixed list with arguments of a fixed shape,
answered by a fixed program (probe.sh) that gets them as arguments. Being read-only is not trusted but enforced on the
target: the program runs as nobody, without any right but to read, and may write no byte to a file; a path is looked at
after its links were followed, against what the skill's manifest shows and what is never shown. Answers are bounded, and
secrets are taken out.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Annotated, Any, Final, Protocol

from anneal_contracts.facts import ProbeState
from anneal_runtime.errors import AnnealError, FailedPrecondition, InvalidArgument, TargetUnreachable
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anneal_skillkit.interfaces import Context, Evaluator, TargetSession
from anneal_skillkit.loader import Skill
from anneal_skillkit.redact import redacted

# Bytes of one answer: some 5000 tokens, of which a prompt takes its share.
ANSWER_LIMIT: Final = 16 * 1024
_TIMEOUT_S: Final = 10.0
_PROGRAM: Final = files("anneal_skillkit").joinpath("probe.sh").read_text()
_NOBODY: Final = "65534"

# Never shown, whatever a manifest says: secrets, other people's files, what blocks or acts when it is opened.
NEVER: Final = (
    "/etc/shadow*", "/etc/gshadow*", "/etc/security/opasswd*", "/etc/ssh/*_key", "/etc/krb5.keytab", "*.keytab",
    "*/private/*", "*.key", "*.p12", "*.pfx", "*.jks", "*/.ssh/*", "*/.gnupg/*", "*/.aws/*", "*/.kube/*", "*/.netrc",
    "/etc/kubernetes/*", "/etc/NetworkManager/system-connections/*", "/etc/machine-id", "/root/*", "/home/*",
    "/var/lib/anneal/*", "/var/lib/sss/*", "/var/log/audit/*", "/dev/*", "/run/*", "/proc/[0-9]*", "/proc/kcore",
    "/proc/kmsg", "/proc/kallsyms", "/sys/*",
)  # fmt: skip

_NO_RIGHTS: Final = "-all"
_READING: Final = "-all,+dac_read_search"


class Arguments(BaseModel):
    """Base of a probe's arguments: closed and immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoArguments(Arguments):
    """A question that needs none."""


AbsolutePath = Annotated[str, Field(min_length=2, max_length=400, pattern=r"^/[^\x00-\x1f\x7f]*$")]


class PathArgument(Arguments):
    path: AbsolutePath = Field(description="Absolute path.")


class SearchArguments(Arguments):
    folder: AbsolutePath = Field(description="Absolute path of the folder; everything below it is searched.")
    text: Annotated[str, Field(min_length=2, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = Field(
        description="The literal text to look for; no pattern."
    )


class PackageArgument(Arguments):
    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = Field(
        description="Name of the package, without version."
    )


class UnitArgument(Arguments):
    name: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@\\-]*$")] = Field(
        description="Name of the systemd unit, such as sshd.service."
    )


# Answers a question: context, item id, checked arguments -> text. Raises ProbeRefused, NothingThere or AnnealError.
Answerer = Callable[[Context, str, Any], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class ProbeTool:
    """One question that a model may ask. description is written for the model."""

    name: str
    description: str
    arguments: type[Arguments]
    answer: Answerer


class Probing(Protocol):
    """A SkillRuntime that has probes of its own, beside those of the kit that its manifest names."""

    def probes(self) -> Sequence[ProbeTool]: ...


class ProbeRefused(AnnealError):
    """What was asked for may not be shown. It is an answer, and no fault of the command's."""

    reason = "probe_refused"


class NothingThere(AnnealError):
    """What was asked for does not exist on the target."""

    reason = "nothing_there"


@dataclass(frozen=True, kw_only=True)
class ProbeAnswer:
    """What came of a question. text is bounded and redacted; detail says why there is none."""

    state: ProbeState
    text: str = ""
    detail: str = ""
    redactions: Mapping[str, int] = field(default_factory=dict)


async def ask(tool: ProbeTool, ctx: Context, item_id: str, arguments: Mapping[str, Any]) -> ProbeAnswer:
    """Answers a question. Raises TargetUnreachable; everything else that goes wrong is an answer too."""
    try:
        checked = tool.arguments.model_validate(dict(arguments))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return ProbeAnswer(state=ProbeState.FAILED, detail=f"{where}: {first['msg']}")
    try:
        text = await tool.answer(ctx, item_id, checked)
    except TargetUnreachable:
        raise
    except ProbeRefused as e:
        return ProbeAnswer(state=ProbeState.DENIED, detail=e.message)
    except NothingThere as e:
        return ProbeAnswer(state=ProbeState.MISSING, detail=e.message)
    except AnnealError as e:
        return ProbeAnswer(state=ProbeState.FAILED, detail=e.message)
    clean, found = redacted(text)
    if len(clean) > ANSWER_LIMIT:
        clean = f"{clean[:ANSWER_LIMIT]}\n[... {len(clean) - ANSWER_LIMIT} characters cut ...]"
    return ProbeAnswer(state=ProbeState.ANSWERED, text=clean, redactions=found)


async def look(
    session: TargetSession, question: str, *words: str, shown: Sequence[str] = (), reading: bool = False
) -> str:
    """Asks the fixed program on the target. shown: globs that may be shown; reading: it needs to read any file.

    Raises ProbeRefused, NothingThere, FailedPrecondition, TargetUnreachable.
    """
    rights = _READING if reading else _NO_RIGHTS
    program = [
        "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs",
        f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}",
        "sh", "-c", _PROGRAM, "anneal-probe",
    ]  # fmt: skip
    limits = [str(ANSWER_LIMIT), " ".join(g.replace("**", "*") for g in shown), " ".join(NEVER)]
    done = await session.run([*program, question, *limits, *words], timeout_s=_TIMEOUT_S, limit=2 * ANSWER_LIMIT)
    said = done.stdout.decode("utf-8", "replace")
    what = " ".join(words[:1])
    match done.exit_code:
        case 0:
            return said.replace("\0", "\\0")
        case 66:
            raise NothingThere(f"nothing of that kind: {what}")
        case 77:
            raise ProbeRefused(f"{said.strip() or what} may not be shown")
        case 65:
            raise FailedPrecondition(f"{what} is not of the kind that this question is about")
    if done.timed_out:
        raise FailedPrecondition(f"no answer within {_TIMEOUT_S:g} s")
    words_of_it = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
    raise FailedPrecondition(f"the question ended with {done.exit_code}: {words_of_it[-200:]}")


def probe_tools(skill: Skill) -> Mapping[str, ProbeTool]:
    """The questions that a skill's model may ask, by name. Raises InvalidArgument where two share a name."""
    declared = skill.manifest.probes
    kit = kit_tools(declared.paths, skill.runtime.evaluator)
    own: Sequence[ProbeTool] = getattr(skill.runtime, "probes", tuple)()
    tools = [kit[name] for name in declared.tools] + list(own)
    found = {tool.name: tool for tool in tools}
    if len(found) != len(tools):
        raise InvalidArgument(f"{skill.manifest.name}: two probes share a name", field="probes")
    return found


def kit_tools(shown: Sequence[str], evaluator: Evaluator) -> Mapping[str, ProbeTool]:
    """The kit's own questions over the paths that a skill shows."""

    async def show_check(ctx: Context, item_id: str, _: NoArguments) -> str:
        found = await evaluator.evaluate(ctx, item_id)
        return f"The check says: {found.outcome.value}.\n{found.evidence or 'It gives no evidence.'}"

    async def read_file(ctx: Context, _: str, a: PathArgument) -> str:
        return await look(ctx.session, "read_file", a.path, shown=shown, reading=True)

    async def list_folder(ctx: Context, _: str, a: PathArgument) -> str:
        return await look(ctx.session, "list_folder", a.path, shown=shown, reading=True)

    async def search_files(ctx: Context, _: str, a: SearchArguments) -> str:
        return await look(ctx.session, "search_files", a.folder, a.text, shown=shown, reading=True)

    async def query_package(ctx: Context, _: str, a: PackageArgument) -> str:
        return await look(ctx.session, "query_package", a.name)

    async def query_unit(ctx: Context, _: str, a: UnitArgument) -> str:
        return await look(ctx.session, "query_unit", a.name)

    below = ", ".join(shown)
    told: list[tuple[str, type[Arguments], Answerer, str]] = [
        ("show_check", NoArguments, show_check, "What the item's check expects and what it finds on the machine now."),
        ("read_file", PathArgument, read_file, f"A file's mode, owner and content. Shown are: {below}."),
        ("list_folder", PathArgument, list_folder, f"The entries of a folder with mode and owner. Shown are: {below}."),
        ("search_files", SearchArguments, search_files, "The lines of the files below a folder that hold a text."),
        ("query_package", PackageArgument, query_package, "Version and configuration files of an installed package."),
        ("query_unit", UnitArgument, query_unit, "Load, active and enabled state of a systemd unit, and its files."),
    ]
    return {n: ProbeTool(name=n, description=d, arguments=a, answer=f) for n, a, f, d in told}
