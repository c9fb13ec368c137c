"""The probe command: an answer becomes a blob, a refusal an answer, an unknown question is never carried out."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anneal_contracts.canonical import sha256_hex
from anneal_contracts.facts import ProbeCall, ProbeState
from anneal_contracts.turns import Probe
from anneal_evaluator.probing import Probes
from anneal_runtime.errors import TargetUnreachable
from anneal_skillkit.bench import Workbench
from anneal_skillkit.interfaces import Context
from anneal_skillkit.loader import Skill
from anneal_skillkit.manifest import Probes as Declared
from anneal_skillkit.probes import NothingThere, PathArgument, ProbeRefused, ProbeTool


class Bench:
    """A bench whose skill has one question of its own."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[Mapping[str, Any]] = []

    def skill(self, _: str) -> Skill:
        tool = ProbeTool(name="tell", description="d", arguments=PathArgument, answer=self._tell)
        runtime = SimpleNamespace(evaluator=None, probes=lambda: [tool])
        manifest = SimpleNamespace(name="s", probes=Declared())
        return Skill(manifest=cast(Any, manifest), runtime=cast(Any, runtime), folder=Path("/"))

    async def _tell(self, ctx: Context, item_id: str, a: PathArgument) -> str:
        self.asked.append({"item": item_id, "path": a.path})
        if a.path == "/refused":
            raise ProbeRefused("/etc/shadow may not be shown")
        if a.path == "/gone":
            raise NothingThere("nothing of that kind: /gone")
        if a.path == "/lost":
            raise TargetUnreachable("no answer")
        return f"{item_id}: password = hunter2"

    async def context(self, _: Probe) -> Any:
        return SimpleNamespace(session=None)

    async def put_blob(self, content: bytes, media_type: str) -> str:
        assert media_type == "text/plain"
        name = sha256_hex(content)
        self.blobs[name] = content
        return name


def probe(tool: str, **arguments: str) -> Probe:
    call = ProbeCall(tool=tool, arguments=dict(arguments))
    return Probe(command_id="c", run_id="r", skill="s", target="t", deadline=0, item_id="rule_1", call=call)


async def test_an_answer_is_a_blob_without_secrets() -> None:
    bench = Bench()
    answer = await Probes(cast(Workbench, bench)).probe(probe("tell", path="/x"))
    assert answer.state is ProbeState.ANSWERED
    assert bench.blobs[answer.blob] == b"rule_1: password = [redacted: secret value]"
    assert (answer.size, answer.redactions) == (len(bench.blobs[answer.blob]), {"secret value": 1})


@pytest.mark.parametrize(
    ("path", "state", "told"), [("/refused", ProbeState.DENIED, "shown"), ("/gone", ProbeState.MISSING, "nothing")]
)
async def test_what_is_refused_or_not_there_is_an_answer_without_text(path: str, state: ProbeState, told: str) -> None:
    bench = Bench()
    answer = await Probes(cast(Workbench, bench)).probe(probe("tell", path=path))
    assert (answer.state, answer.blob, bench.blobs) == (state, "", {})
    assert told in answer.detail


async def test_a_question_that_the_skill_does_not_have_is_never_carried_out() -> None:
    bench = Bench()
    answer = await Probes(cast(Workbench, bench)).probe(probe("run_shell", command="id"))
    assert answer.state is ProbeState.DENIED
    assert bench.asked == []


async def test_a_target_that_is_lost_is_no_answer() -> None:
    with pytest.raises(TargetUnreachable):
        await Probes(cast(Workbench, Bench())).probe(probe("tell", path="/lost"))
