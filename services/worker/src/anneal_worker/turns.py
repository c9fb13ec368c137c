"""Model turns as commands: a proposal becomes a gated rung or questions, the rest what the engine decides upon.

Transcripts are kept as blobs.
"""

import asyncio
from collections.abc import Sequence

from anneal_contracts.facts import Action
from anneal_contracts.probing import Question
from anneal_contracts.turns import ChooseItem, Chosen, Decided, Learn, Learnt, PlanItem, ReviewItem
from anneal_contracts.work import (
    Candidate,
    Propose,
    Proposed,
    Reflect,
    Reflected,
)
from anneal_skillkit.bench import Handler, Workbench
from anneal_skillkit.manifest import Role
from anneal_skillkit.probes import probe_tools

from anneal_worker.gate import candidate
from anneal_worker.roles import ModelDoor, choose, learn, plan_item, propose, reflect, review_item


class Turns:
    """One method a kind of turn."""

    def __init__(self, bench: Workbench, door: ModelDoor) -> None:
        self._bench = bench
        self._door = door

    def handlers(self) -> dict[str, Handler]:
        """Command kind -> method, for the turns that the engine waits for."""
        return {
            "choose_item": self.choose_item,
            "plan_item": self.plan_item,
            "review_item": self.review_item,
            "propose": self.propose,
            "learn": self.learn,
        }

    async def propose(self, command: Propose) -> Proposed:
        """One script by the model, behind the gate, or its questions; a refused one comes with the policy's reason."""
        answer = await propose(
            self._door,
            command,
            command.model_profile,
            self._bench.blob,
            guidance=self._guidance(command.skill, "worker"),
            questions=self._questions(command.skill) if command.probes_now else (),
        )
        gated, kept = await asyncio.gather(self._gated(answer.action), self._keep(answer.transcript))
        return Proposed(
            command_id=command.command_id,
            candidate=gated,
            probes=answer.probes,
            similarity=answer.similarity,
            mode=answer.mode,
            detail=answer.detail,
            usage=answer.usage,
            transcript_blobs=kept,
            model=answer.model,
        )

    async def learn(self, command: Learn) -> Learnt:
        """What one failed attempt of the model's teaches."""
        guidance = self._guidance(command.skill, "reflector")
        turn, lesson, similarity = await learn(
            self._door, command, command.model_profile, self._bench.blob, guidance=guidance
        )
        return Learnt(
            command_id=command.command_id,
            lesson=lesson,
            similarity=similarity,
            mode=turn.mode,
            detail=turn.detail,
            usage=turn.usage,
            transcript_blobs=await self._keep(turn.transcript),
            model=turn.model,
        )

    async def plan_item(self, command: PlanItem) -> Decided:
        """The Architect's plan for an item."""
        guidance = self._guidance(command.skill, "architect")
        decided, turn = await plan_item(self._door, command, self._bench.blob, guidance=guidance)
        return decided.model_copy(update={"transcript_blobs": await self._keep(turn.transcript)})

    async def review_item(self, command: ReviewItem) -> Decided:
        """The Architect's second look at an item."""
        guidance = self._guidance(command.skill, "architect")
        decided, turn = await review_item(self._door, command, self._bench.blob, guidance=guidance)
        return decided.model_copy(update={"transcript_blobs": await self._keep(turn.transcript)})

    async def choose_item(self, command: ChooseItem) -> Chosen:
        """The Architect's choice among items that are ready."""
        chosen, turn = await choose(self._door, command, guidance=self._guidance(command.skill, "architect"))
        return chosen.model_copy(update={"transcript_blobs": await self._keep(turn.transcript)})

    async def reflect(self, command: Reflect) -> Reflected:
        """Plain words about an item that was given up; empty where the model had none."""
        guidance = self._guidance(command.skill, "reflector")
        answer = await reflect(self._door, command, command.model_profile, self._bench.blob, guidance=guidance)
        return Reflected(
            command_id=command.command_id,
            words=answer.words,
            model=answer.model,
            usage=answer.usage,
            detail=answer.detail,
            transcript_blobs=await self._keep(answer.transcript),
        )

    def _guidance(self, skill: str, role: Role) -> str:
        return self._bench.skill(skill).guidance(role)

    def _questions(self, skill: str) -> tuple[Question, ...]:
        tools = probe_tools(self._bench.skill(skill)).values()
        return tuple(Question(name=t.name, description=t.description, arguments=t.arguments) for t in tools)

    async def _gated(self, action: Action | None) -> Candidate | None:
        return None if action is None else await candidate(self._bench, action)

    async def _keep(self, transcript: Sequence[bytes]) -> tuple[str, ...]:
        kept = await asyncio.gather(*(self._bench.put_blob(entry, "application/json") for entry in transcript))
        return tuple(kept)
