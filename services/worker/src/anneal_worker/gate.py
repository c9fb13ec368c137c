"""The gate: an action with the policy's word on it, stored, as a rung that the supervisor can choose."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from anneal_contracts.facts import Action, FixSource
from anneal_contracts.work import Candidate
from anneal_skillkit.bench import Workbench
from anneal_skillkit.policy import PolicyDecision, decide

_BLOBS_AT_ONCE = 8


async def gated(bench: Workbench, actions: Sequence[Action], bans: Mapping[str, str]) -> list[Candidate]:
    """Rungs in the order given, each script once. bans: action hash -> why it is banned here."""
    unique = {a.hash: a for a in reversed(actions)}
    ordered = [unique[h] for h in dict.fromkeys(a.hash for a in actions)]
    limit = asyncio.Semaphore(_BLOBS_AT_ONCE)

    async def one(action: Action) -> Candidate:
        async with limit:
            return await candidate(bench, action, banned=bans.get(action.hash, ""))

    return list(await asyncio.gather(*(one(a) for a in ordered)))


async def candidate(bench: Workbench, action: Action, *, banned: str = "") -> Candidate:
    """One gated rung; its content is a blob, byte for byte what would run."""
    decision = decided(action)
    media_type = "text/x-shellscript" if action.kind == "bash" else "application/yaml"
    blob, undo = await asyncio.gather(
        bench.put_blob(action.content.encode(), media_type), _stored(bench, action.undo or "")
    )
    return Candidate(
        hash=action.hash,
        blob=blob,
        undo_blob=undo,
        source=action.source,
        kind=action.kind,
        title=action.title,
        mutability=decision.mutability,
        risks_reach=action.risks_reach,
        needs_reboot=action.needs_reboot,
        timeout_s=action.timeout_s,
        origin=action.origin,
        tip_id=action.tip_id,
        allowed=decision.allowed,
        policy=decision.explanation,
        banned=banned,
    )


async def _stored(bench: Workbench, undo: str) -> str:
    return await bench.put_blob(undo.encode(), "text/x-shellscript") if undo else ""


def decided(action: Action) -> PolicyDecision:
    """The gate's word on an action and on the script that would take it back; a refused undo refuses both.

    A recalled script is judged like its first author's: what the skill ships stays as trusted as it was.
    """
    origin = action.origin if action.source is FixSource.RECALLED else ""
    shipped = origin in (FixSource.VENDOR, FixSource.CURATED)
    source = FixSource(origin) if shipped else action.source
    decision = decide(action, source=source)
    if not decision.allowed or not action.undo:
        return decision
    undo = decide(action.model_copy(update={"kind": "undo", "content": action.undo, "undo": None}), source=source)
    if undo.allowed:
        return decision
    return replace(undo, explanation=f"The script that takes it back: {undo.explanation}")
