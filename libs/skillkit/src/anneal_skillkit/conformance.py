"""What every skill must keep, checked on its folder without a target: `python -m anneal_skillkit.conformance FOLDER`.

Each check is a coroutine that raises AssertionError with what is wrong. Nothing here knows any one skill.
"""

import asyncio
import inspect
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anneal_contracts.facts import DeclaredMode
from anneal_runtime.errors import AnnealError, InvalidArgument

from anneal_skillkit.interfaces import Checkpoint, Evaluator, Executor, WorkQueue
from anneal_skillkit.loader import Skill, load_skill
from anneal_skillkit.probes import probe_tools

_UNLIKELY: Final = "no-such-item-0b1f"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check's result; problem is empty when the skill keeps it."""

    check: str
    problem: str


async def has_all_interfaces(skill: Skill) -> None:
    """The runtime has the five interfaces with all their methods."""
    wanted = {"work_queue": WorkQueue, "executor": Executor, "evaluator": Evaluator, "checkpoint": Checkpoint}
    for part, protocol in wanted.items():
        one = getattr(skill.runtime, part, None)
        assert one is not None, f"the runtime has no {part}"
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if name.startswith("_"):
                continue
            own = getattr(one, name, None)
            assert callable(own), f"{part} has no method {name}"
            same = inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(method)
            assert same, f"{part}.{name} must {'' if inspect.iscoroutinefunction(method) else 'not '}be a coroutine"


async def tells_its_modes(skill: Skill) -> None:
    """modes() is what the manifest declares."""
    modes = skill.runtime.modes()
    assert all(isinstance(mode, DeclaredMode) for mode in modes), "modes() must give DeclaredMode records"
    assert set(modes) == set(skill.manifest.modes), "modes() and the manifest's modes differ"
    told = set(skill.runtime.checkpoint.volatile_paths())
    assert told == set(skill.manifest.volatile_paths), "volatile_paths() and the manifest's differ"


async def accepts_its_own_profiles(skill: Skill) -> None:
    """Every profile of the manifest is accepted by check()."""
    for profile in skill.manifest.profiles:
        problems = await skill.runtime.work_queue.check(profile=profile.name, item_ids=(), tailoring=b"")
        assert not problems, f"profile {profile.name}: {problems[0]}"


async def names_the_field_of_a_bad_specification(skill: Skill) -> None:
    """check() answers a bad item, profile or tailoring with the field's name, and does not raise."""
    check = skill.runtime.work_queue.check
    default = skill.manifest.default_profile
    for field, call in {
        "item_ids": check(profile=default, item_ids=[_UNLIKELY], tailoring=b""),
        "profile": check(profile=_UNLIKELY, item_ids=(), tailoring=b""),
        "tailoring": check(profile=default, item_ids=(), tailoring=b"\x00 not a tailoring file"),
    }.items():
        fields = [problem[0] for problem in await call]
        assert field in fields, f"a bad {field} is answered with {fields}"


async def describes_its_probes(skill: Skill) -> None:
    """Every question that a model may ask has a name of its own, words for the model, and closed arguments."""
    for name, tool in probe_tools(skill).items():
        assert name.isidentifier(), f"probe {name!r}: a name has letters, digits and _"
        assert tool.description.strip(), f"probe {name} has no description"
        assert tool.arguments.model_config.get("extra") == "forbid", f"probe {name}: its arguments take unknown fields"
        told = tool.arguments.model_fields.items()
        assert all(spec.description for _, spec in told), f"probe {name}: an argument has no description"


async def refuses_an_unknown_export(skill: Skill) -> None:
    """export() raises InvalidArgument for a format that the manifest does not list."""
    try:
        await skill.runtime.export(_UNLIKELY, {}, {})
    except InvalidArgument:
        return
    raise AssertionError("export() takes a format that does not exist")


async def explains_itself(skill: Skill) -> None:
    """SKILL.md and the prompts say something."""
    for name in ("SKILL.md", *skill.manifest.prompts.values()):
        path = skill.folder / name
        assert path.is_file(), f"{name} is missing"
        assert path.read_text(encoding="utf-8").strip(), f"{name} is empty"


CHECKS: Final[tuple[Callable[[Skill], Awaitable[None]], ...]] = (
    has_all_interfaces,
    tells_its_modes,
    accepts_its_own_profiles,
    names_the_field_of_a_bad_specification,
    describes_its_probes,
    refuses_an_unknown_export,
    explains_itself,
)


async def check_skill(folder: Path, *, cache: Path) -> list[Finding]:
    """Runs every check on a skill's folder; one that cannot be loaded has that as its only finding."""
    try:
        skill = load_skill(folder, cache=cache)
    except AnnealError as e:
        return [Finding(check="loads", problem=e.message)]
    findings = [Finding(check="loads", problem="")]
    for check in CHECKS:
        try:
            await check(skill)
        except Exception as e:  # a skill's own code may raise anything
            findings.append(Finding(check=check.__name__, problem=f"{type(e).__name__}: {e}"))
        else:
            findings.append(Finding(check=check.__name__, problem=""))
    return findings


def main(argv: list[str]) -> int:
    """Prints one line a check; 1 when one of them failed."""
    with tempfile.TemporaryDirectory(prefix="anneal-conformance-") as cache:
        findings = asyncio.run(check_skill(Path(argv[0]), cache=Path(cache)))
    for finding in findings:
        print(f"{'FAIL' if finding.problem else 'ok':4}  {finding.check}  {finding.problem}".rstrip())
    return int(any(finding.problem for finding in findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
