"""Model turns: a proposal becomes a gated rung, a reflection becomes words. Transcripts are kept as blobs."""

from collections.abc import Sequence

from anneal_contracts.work import (
    Propose,
    Proposed,
    Reflect,
    Reflected,
)
from anneal_skillkit.bench import Workbench

from anneal_worker.gate import candidate
from anneal_worker.roles import ModelDoor, propose, reflect


class Turns:
    """The propose and reflect commands."""

    def __init__(self, bench: Workbench, door: ModelDoor) -> None:
        self._bench = bench
        self._door = door

    async def propose(self, command: Propose) -> Proposed:
        """One script by the model, behind the gate; a refused one is reported with the policy's reason."""
        guidance = self._bench.skill(command.skill).guidance("worker")
        answer = await propose(self._door, command, command.model_profile, self._bench.blob, guidance=guidance)
        gated = await candidate(self._bench, answer.action) if answer.action is not None else None
        return Proposed(
            command_id=command.command_id,
            candidate=gated,
            mode=answer.mode,
            detail=answer.detail,
            usage=answer.usage,
            transcript_blobs=await self._keep(answer.transcript),
            model=answer.model,
        )

    async def reflect(self, command: Reflect) -> Reflected:
        """Plain words about an item that was given up; empty where the model had none."""
        guidance = self._bench.skill(command.skill).guidance("reflector")
        answer = await reflect(self._door, command, command.model_profile, self._bench.blob, guidance=guidance)
        return Reflected(
            command_id=command.command_id,
            words=answer.words,
            model=answer.model,
            usage=answer.usage,
            detail=answer.detail,
            transcript_blobs=await self._keep(answer.transcript),
        )

    async def _keep(self, transcript: Sequence[bytes]) -> tuple[str, ...]:
        return tuple([await self._bench.put_blob(entry, "application/json") for entry in transcript])
