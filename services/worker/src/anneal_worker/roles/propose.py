"""The Worker role: one bash script under the contract ActionProposal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anneal_contracts.facts import (
    Action,
    CoreMode,
    FixSource,
    Mutability,
)
from anneal_contracts.roles import ACTION_PROPOSAL, MODEL_UNAVAILABLE, ActionProposal, May, ModelRole
from anneal_contracts.work import Propose, Usage
from anneal_runtime.errors import AnnealError

from anneal_worker.roles.blobs import BlobReader, past_scripts
from anneal_worker.roles.door import Call, ModelDoor, ProfileInfo
from anneal_worker.roles.prompts import compose, item_parts, past_parts, render, room_chars
from anneal_worker.roles.turn import DEFAULT_TRIES, Turn, take_turn


@dataclass(frozen=True, kw_only=True)
class ProposedAnswer:
    """What the Worker role came to. action is None: mode (a failure mode's name) and detail say why.

    The action has not passed the policy gate; nothing may run it before. transcript: canonical JSON, one entry a call.
    """

    action: Action | None
    mode: str = ""
    detail: str = ""
    # The model's own account of the cause; for people, never evidence.
    analysis: str = ""
    usage: Usage = field(default_factory=Usage)
    transcript: Sequence[bytes] = ()
    model: str = ""


async def propose(
    door: ModelDoor,
    request: Propose,
    profile: str,
    blob_reader: BlobReader | None = None,
    *,
    guidance: str = "",
    tries: int = DEFAULT_TRIES,
) -> ProposedAnswer:
    """Asks the model of a profile for the next action on an item. guidance: what the skill adds to the prompt.

    Never raises for what a model or its server does. A profile that may not author is refused without a call.
    """
    try:
        info = (await door.profiles()).get(profile or "default")
    except AnnealError as e:
        return ProposedAnswer(action=None, mode=MODEL_UNAVAILABLE, detail=e.message)
    refusal = _refusal(profile, info)
    if refusal or info is None:
        return ProposedAnswer(action=None, mode=CoreMode.POLICY_DENIED.value, detail=refusal)
    scripts = await past_scripts(request.past, blob_reader)
    messages = _messages(request, info, scripts, guidance)
    call = Call(run_id=request.run_id, item_id=request.item.id, profile=info.name, role=ModelRole.WORKER)
    turn = await take_turn(
        door,
        call,
        info,
        ACTION_PROPOSAL,
        messages,
        tries=tries,
        context={"needs_undo": not request.can_snapshot, "tried": {s.strip() for s in scripts.values()}},
    )
    return _answer(turn)


def _refusal(profile: str, info: ProfileInfo | None) -> str:
    if info is None:
        return f"There is no model profile {profile!r}."
    if info.may is not May.AUTHOR:
        return f"Model profile {info.name!r} may not author scripts (may: {info.may.value})."
    return ""


def _messages(request: Propose, info: ProfileInfo, scripts: Mapping[int, str], guidance: str) -> list[dict[str, str]]:
    room = room_chars(info.context_tokens, info.max_tokens_by_role.get(ModelRole.WORKER.value, 1024))
    past = past_parts(request.past, scripts)
    values = {
        "item": compose(item_parts(request.item), room // 2),
        "environment": _environment(request),
        "past": compose(past, room // 2) if past else "Nothing yet.",
        "contract": ACTION_PROPOSAL.render(),
        "attempt": str(request.attempt),
    }
    return [
        {"role": "system", "content": render("worker.system.md", values, guidance)},
        {"role": "user", "content": render("worker.user.md", values)},
    ]


def _environment(request: Propose) -> str:
    lines = [f"Skill {request.skill}, profile {request.profile or 'default'}, attempt {request.attempt}."]
    if request.fingerprint:
        lines.append(f"Kind of machine: {request.fingerprint}.")
    if request.can_snapshot:
        lines.append("The machine is saved before the script runs and brought back if it fails.")
    else:
        lines.append("The machine cannot be saved: only a change that your undo script takes back exactly may run.")
    return "\n".join(lines)


def _answer(turn: Turn[ActionProposal]) -> ProposedAnswer:
    proposal, mode, detail = turn.answer, turn.mode, turn.detail
    action = None
    if proposal is not None and proposal.missing_input.strip():
        mode, detail = CoreMode.MISSING_INPUT.value, proposal.missing_input.strip()
    elif proposal is not None:
        action = _action(proposal)
    return ProposedAnswer(
        action=action,
        mode=mode,
        detail=detail,
        analysis=proposal.analysis if proposal is not None else "",
        usage=turn.usage,
        transcript=turn.transcript,
        model=turn.model,
    )


def _action(proposal: ActionProposal) -> Action:
    """The proposal as an action. What the model says of its risk can only make the gate stricter, never laxer."""
    return Action(
        source=FixSource.MODEL,
        kind="bash",
        title=proposal.title.strip(),
        content=proposal.script.rstrip() + "\n",
        mutability=Mutability.REVERSIBLE,
        risks_reach=proposal.risks_reach or proposal.risk == "high",
        needs_reboot=proposal.needs_reboot,
        undo=proposal.undo.rstrip() + "\n" if proposal.undo.strip() else None,
    )
