"""The Architect role: the plan for an item, a second look on evidence, and the choice among items that are ready."""

from anneal_contracts.architect import (
    ARCHITECT_DECISION,
    ITEM_PLAN,
    ArchitectDecision,
    ItemChoice,
    ItemPlan,
    Verdict,
    item_choice,
)
from anneal_contracts.roles import ModelRole
from anneal_contracts.turns import ChooseItem, Chosen, Decided, PlanItem, ReviewItem, Strategy

from anneal_worker.roles.blobs import BlobReader
from anneal_worker.roles.door import Call, ModelDoor
from anneal_worker.roles.forms import Form
from anneal_worker.roles.material import call_of, gather, profile_of
from anneal_worker.roles.prompts import Part, compose, render, room_chars
from anneal_worker.roles.turn import DEFAULT_TRIES, Turn, take_turn

_ROLE = ModelRole.ARCHITECT


async def plan_item(
    door: ModelDoor, request: PlanItem, read: BlobReader | None = None, *, guidance: str = ""
) -> tuple[Decided, Turn[ItemPlan]]:
    """The plan for an item, before a script is written. Never raises for what a model or its server does."""
    info, mode, detail = await profile_of(door, request.model_profile)
    if info is None:
        refused: Turn[ItemPlan] = Turn(answer=None, mode=mode, detail=detail)
        return _decided(request.command_id, refused), refused
    material = await gather(request, info, _ROLE, read)
    values = {**material.values, "environment": request.fingerprint or "not known", "contract": ITEM_PLAN.render()}
    messages = [
        {"role": "system", "content": render("architect.system.md", values, guidance)},
        {"role": "user", "content": render("architect.plan.md", values)},
    ]
    tries, left = min(DEFAULT_TRIES, request.calls_left), request.tokens_left
    form = Form(contract=ITEM_PLAN)
    call = call_of(request, info, _ROLE)
    turn = await take_turn(door, call, info, form, messages, tries=tries, tokens_left=left)
    plan = turn.answer
    decided = _decided(request.command_id, turn)
    if plan is None:
        return decided, turn
    if plan.missing_input.strip():
        gone = {"decision": "escalate", "reason": plan.diagnosis, "missing_input": plan.missing_input.strip()}
        return decided.model_copy(update=gone), turn
    return decided.model_copy(
        update={"decision": "plan", "reason": plan.diagnosis, "strategy": _strategy(plan, plan.diagnosis)}
    ), turn


async def review_item(
    door: ModelDoor, request: ReviewItem, read: BlobReader | None = None, *, guidance: str = ""
) -> tuple[Decided, Turn[ArchitectDecision]]:
    """A second look at an item, on the evidence that the request names."""
    info, mode, detail = await profile_of(door, request.model_profile)
    if info is None:
        refused: Turn[ArchitectDecision] = Turn(answer=None, mode=mode, detail=detail)
        return _decided(request.command_id, refused), refused
    material = await gather(request, info, _ROLE, read)
    values = {
        **material.values,
        "why": request.why,
        "tries_left": str(request.tries_left),
        "contract": ARCHITECT_DECISION.render(),
    }
    messages = [
        {"role": "system", "content": render("architect.system.md", values, guidance)},
        {"role": "user", "content": render("architect.review.md", values)},
    ]
    tries, left = min(DEFAULT_TRIES, request.calls_left), request.tokens_left
    form = Form(contract=ARCHITECT_DECISION)
    call = call_of(request, info, _ROLE)
    turn = await take_turn(door, call, info, form, messages, tries=tries, tokens_left=left)
    said = turn.answer
    decided = _decided(request.command_id, turn)
    if said is None:
        return decided, turn
    strategy = _strategy(said, said.diagnosis or said.reason) if said.decision is Verdict.PIVOT else None
    told = {"decision": said.decision.value.lower(), "reason": said.reason, "strategy": strategy}
    return decided.model_copy(update={**told, "missing_input": said.missing_input.strip()}), turn


async def choose(door: ModelDoor, request: ChooseItem, *, guidance: str = "") -> tuple[Chosen, Turn[ItemChoice]]:
    """The next among items that are ready; an id that was not offered breaks the contract and is fed back."""
    info, mode, detail = await profile_of(door, request.model_profile)
    if info is None:
        refused: Turn[ItemChoice] = Turn(answer=None, mode=mode, detail=detail)
        return _chosen(request.command_id, refused), refused
    contract = item_choice([item.id for item in request.items])
    room = room_chars(info.context_tokens, info.max_tokens_by_role.get(_ROLE.value, 1024))
    items = [
        Part(label=f"{item.id}, {item.severity}", text=f"{item.title}\n{item.description}", limit=900)
        for item in request.items
    ]
    values = {
        "items": compose(items, room * 2 // 3),
        "story": compose([Part(label="what came of them", text="\n".join(request.story))], room // 3) or "None yet.",
        "contract": contract.render(),
    }
    messages = [
        {"role": "system", "content": render("architect.choice.system.md", values, guidance)},
        {"role": "user", "content": render("architect.choice.md", values)},
    ]
    call = Call(run_id=request.run_id, item_id="", profile=info.name, role=_ROLE)
    tries = min(DEFAULT_TRIES, request.calls_left)
    turn = await take_turn(door, call, info, Form(contract=contract), messages, tries=tries)
    chosen = _chosen(request.command_id, turn)
    if turn.answer is None:
        return chosen, turn
    return chosen.model_copy(update={"item_id": turn.answer.item_id, "reason": turn.answer.reason}), turn


def _strategy(said: ItemPlan | ArchitectDecision, diagnosis: str) -> Strategy:
    return Strategy(diagnosis=diagnosis, approach=said.approach.strip(), steps=said.steps, look_at=said.look_at)


def _decided(command_id: str, turn: Turn[ItemPlan] | Turn[ArchitectDecision]) -> Decided:
    return Decided(command_id=command_id, mode=turn.mode, detail=turn.detail, usage=turn.usage, model=turn.model)


def _chosen(command_id: str, turn: Turn[ItemChoice]) -> Chosen:
    return Chosen(command_id=command_id, mode=turn.mode, detail=turn.detail, usage=turn.usage, model=turn.model)
