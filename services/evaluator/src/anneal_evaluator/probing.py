"""Questions of a model's about a target, answered by the skill's tools, which only read. An answer is no verdict."""

from anneal_contracts.facts import ProbeState
from anneal_contracts.turns import Probe, Probed
from anneal_skillkit.bench import Workbench
from anneal_skillkit.probes import ask, probe_tools


class Probes:
    """The probe command."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def probe(self, command: Probe) -> Probed:
        """Answers one question; the text is a blob, bounded and redacted. Raises TargetUnreachable."""
        tool = probe_tools(self._bench.skill(command.skill)).get(command.call.tool)
        if tool is None:
            detail = f"{command.skill} has no probe {command.call.tool!r}"
            return Probed(command_id=command.command_id, state=ProbeState.DENIED, detail=detail)
        ctx = await self._bench.context(command)
        answer = await ask(tool, ctx, command.item_id, command.call.arguments)
        content = answer.text.encode()
        return Probed(
            command_id=command.command_id,
            state=answer.state,
            blob=await self._bench.put_blob(content, "text/plain") if content else "",
            size=len(content),
            redactions=dict(answer.redactions),
            detail=answer.detail[:500],
        )
