"""The gate: an action with the policy's word on it, stored, as a rung that the supervisor can choose."""

import asyncio
from collections.abc import Mapping, Sequence

from anneal_contracts.work import Action, Candidate
from anneal_skillkit.bench import Workbench
from anneal_skillkit.policy import decide

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
    decision = decide(action, source=action.source)
    media_type = "text/x-shellscript" if action.kind == "bash" else "application/yaml"
    blob = await bench.put_blob(action.content.encode(), media_type)
    undo = await bench.put_blob(action.undo.encode(), "text/x-shellscript") if action.undo else ""
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
