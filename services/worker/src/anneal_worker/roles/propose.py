"""The Worker role: one bash script under the contract ActionProposal, or questions about the machine first."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from anneal_contracts.facts import (
    Action,
    CoreMode,
    FixSource,
    Mutability,
    ProbeCall,
)
from anneal_contracts.probing import Question, WorkerAnswer, WorkerContract, key
from anneal_contracts.roles import ACTION_PROPOSAL, ActionProposal, ModelRole
from anneal_contracts.turns import Propose
from anneal_contracts.work import Usage

from anneal_worker.roles.blobs import BlobReader
from anneal_worker.roles.door import ModelDoor
from anneal_worker.roles.forms import Form, worker_form
from anneal_worker.roles.material import Material, call_of, gather, profile_of
from anneal_worker.roles.prompts import render
from anneal_worker.roles.similarity import nearest
from anneal_worker.roles.turn import DEFAULT_TRIES, Turn, take_turn


@dataclass(frozen=True, kw_only=True)
class ProposedAnswer:
    """What the Worker role came to: an action, or questions, or neither; mode (a failure mode's name) says why.

    The action has not passed the policy gate; nothing may run it before. transcript: canonical JSON, one entry a call.
    """

    action: Action | None
    probes: tuple[ProbeCall, ...] = ()
    mode: str = ""
    detail: str = ""
    # The model's own account of the cause; for people, never evidence.
    analysis: str = ""
    # Likeness of the script to the nearest that was tried before.
    similarity: float = 0.0
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
    questions: Sequence[Question] = (),
) -> ProposedAnswer:
    """Asks the model of a profile for the next action on an item. guidance: what the skill adds to the prompt.

    questions: what it may ask about the machine instead, within the bounds of the request. Never raises for what a
    model or its server does. A profile that may not author is refused without a call.
    """
    info, mode, detail = await profile_of(door, profile)
    if info is None:
        return ProposedAnswer(action=None, mode=mode, detail=detail)
    material = await gather(request, info, ModelRole.WORKER, blob_reader)
    context = {
        "needs_undo": not request.can_snapshot,
        "tried": {s.strip() for s in material.scripts.values()},
        "banned": tuple(text for lesson in request.lessons for text in lesson.banned_text),
        "asked": frozenset(key(fact.call) for fact in request.facts),
    }
    call = call_of(request, info, ModelRole.WORKER)
    tries, left = min(DEFAULT_TRIES, request.calls_left), request.tokens_left
    if questions and request.probes_now:
        form = worker_form(WorkerContract(questions, request.probes_now), functions=info.tools)
        messages = _messages(request, material, form, guidance)
        asked = await take_turn(door, call, info, form, messages, tries=tries, tokens_left=left, context=context)
        return _either(asked, material)
    plain = Form(contract=ACTION_PROPOSAL)
    messages = _messages(request, material, plain, guidance)
    turn = await take_turn(door, call, info, plain, messages, tries=tries, tokens_left=left, context=context)
    return _answer(turn, turn.answer, material)


def _messages(
    request: Propose, material: Material, form: Form[ActionProposal] | Form[WorkerAnswer], guidance: str
) -> list[dict[str, str]]:
    values = {
        **material.values,
        "environment": _environment(request),
        "contract": form.render(),
        "probes": _probes(request, form),
    }
    return [
        {"role": "system", "content": render("worker.system.md", values, guidance)},
        {"role": "user", "content": render("worker.user.md", values)},
    ]


def _probes(request: Propose, form: Form[ActionProposal] | Form[WorkerAnswer]) -> str:
    if isinstance(form.contract, WorkerContract):
        left = f"You may ask {request.probes_left} more questions about the machine, {request.probes_now} at once."
        return f"{left} Once you know enough, write the next attempt."
    return "Write the next attempt."


def _environment(request: Propose) -> str:
    lines = [f"Skill {request.skill}, profile {request.profile or 'default'}, attempt {request.attempt}."]
    if request.fingerprint:
        lines.append(f"Kind of machine: {request.fingerprint}.")
    if request.can_snapshot:
        lines.append("The machine is saved before the script runs and brought back if it fails.")
    else:
        lines.append("The machine cannot be saved: only a change that your undo script takes back exactly may run.")
    return "\n".join(lines)


def _either(turn: Turn[WorkerAnswer], material: Material) -> ProposedAnswer:
    """What a turn that could ask came to."""
    if turn.answer is not None and turn.answer.probes:
        return ProposedAnswer(
            action=None,
            probes=turn.answer.calls(),
            usage=turn.usage,
            transcript=turn.transcript,
            model=turn.model,
        )
    return _answer(turn, turn.answer.action if turn.answer is not None else None, material)


def _answer(
    turn: Turn[WorkerAnswer] | Turn[ActionProposal], proposal: ActionProposal | None, material: Material
) -> ProposedAnswer:
    mode, detail = turn.mode, turn.detail
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
        similarity=nearest(action.content, material.scripts.values()) if action is not None else 0.0,
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
