"""What a turn on an item is told, gathered once and fitted into the room that its model has."""

from dataclasses import dataclass

from anneal_contracts.facts import CoreMode
from anneal_contracts.roles import MODEL_UNAVAILABLE, May, ModelRole
from anneal_contracts.turns import Turn
from anneal_runtime.errors import AnnealError

from anneal_worker.roles.blobs import BlobReader, past_scripts, texts_of
from anneal_worker.roles.door import Call, ModelDoor, ProfileInfo
from anneal_worker.roles.prompts import compose, fact_parts, item_parts, lesson_parts, past_parts, plan_text, room_chars


@dataclass(frozen=True, kw_only=True)
class Material:
    """scripts: attempt number -> the script that it ran. values: texts for the placeholders that turns share."""

    scripts: dict[int, str]
    values: dict[str, str]


async def gather(request: Turn, info: ProfileInfo, role: ModelRole, read: BlobReader | None) -> Material:
    """The item, what was tried, what is known and what was learnt, each labelled, bounded and fenced."""
    scripts = await past_scripts(request.past, read)
    texts = await texts_of((f.blob for f in request.facts), read)
    room = room_chars(info.context_tokens, info.max_tokens_by_role.get(role.value, 1024))
    past, facts = past_parts(request.past, scripts), fact_parts(request.facts, texts)
    lessons = lesson_parts(request.lessons, request.recalled)
    # What is not there leaves its share to the others.
    shares = {"item": 3, "past": 3 if past else 0, "facts": 3 if facts else 0, "lessons": 1 if lessons else 0}
    whole = sum(shares.values())
    return Material(
        scripts=scripts,
        values={
            "item": compose(item_parts(request.item), room * shares["item"] // whole),
            "past": compose(past, room * shares["past"] // whole) if past else "Nothing yet.",
            "facts": compose(facts, room * shares["facts"] // whole) if facts else "Nothing was asked yet.",
            "lessons": compose(lessons, room * shares["lessons"] // whole) if lessons else "None yet.",
            "plan": plan_text(request.strategy),
        },
    )


async def profile_of(door: ModelDoor, name: str) -> tuple[ProfileInfo | None, str, str]:
    """The profile of a role that is to author or to judge; else none, with the mode and the detail that say why."""
    try:
        info = (await door.profiles()).get(name or "default")
    except AnnealError as e:
        return None, MODEL_UNAVAILABLE, e.message
    if info is None:
        return None, CoreMode.POLICY_DENIED.value, f"There is no model profile {name!r}."
    if info.may is not May.AUTHOR:
        refusal = f"Model profile {info.name!r} may not author scripts (may: {info.may.value})."
        return None, CoreMode.POLICY_DENIED.value, refusal
    return info, "", ""


def call_of(request: Turn, info: ProfileInfo, role: ModelRole) -> Call:
    """Whose call it is."""
    return Call(run_id=request.run_id, item_id=request.item.id, profile=info.name, role=role)
