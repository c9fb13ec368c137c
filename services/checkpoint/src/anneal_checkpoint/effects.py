"""The effect ledger: that a change is intended is committed before it happens, and what came of it after.

The effect's key is hash(run, item, attempt, action) and is the idempotency key of both calls: repeating either gives
the recorded state, and another action under the same key is refused.
"""

from dataclasses import dataclass, replace

from anneal_runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from anneal_runtime.faults import declare, faultpoint

from anneal_checkpoint.checks import check_key, check_run_id
from anneal_checkpoint.errors import missing_target
from anneal_checkpoint.leases import check_holder
from anneal_checkpoint.model import Effect, EffectState
from anneal_checkpoint.store import Store

AFTER_BEGIN = declare("checkpoint.after_effect_begun")
AFTER_FINISH = declare("checkpoint.after_effect_finished")

# What may follow a state. A change that ran or failed half-way may still be taken back; an undone one is history.
NEXT: dict[EffectState, frozenset[EffectState]] = {
    EffectState.INTENDED: frozenset({EffectState.APPLIED, EffectState.FAILED, EffectState.UNDONE}),
    EffectState.APPLIED: frozenset({EffectState.UNDONE}),
    EffectState.FAILED: frozenset({EffectState.UNDONE}),
    EffectState.UNDONE: frozenset(),
}

_TEXT_MAX = 300


@dataclass(frozen=True, kw_only=True)
class Begun:
    """before: the effect was recorded by an earlier call; what is on the target must be read first."""

    effect: Effect
    before: bool


def advance(effect: Effect, state: EffectState, exit_code: int) -> Effect:
    """The effect after it came to state; the same one where it was there already. Raises FailedPrecondition."""
    if state is effect.state and (exit_code == effect.exit_code or state is EffectState.UNDONE):
        return effect
    if state not in NEXT[effect.state]:
        raise FailedPrecondition(
            f"effect {effect.key} is {effect.state} with exit code {effect.exit_code}; it cannot become {state} "
            f"with exit code {exit_code}",
            field="state",
        )
    # The exit code stays that of the run of the script, also after it was undone.
    came_to = effect.exit_code if state is EffectState.UNDONE else exit_code
    return replace(effect, state=state, exit_code=came_to)


def same_change(one: Effect, two: Effect) -> bool:
    """True where both records are of the same change, whatever came of it."""
    fields = ("key", "target", "run_id", "item_id", "attempt", "action_hash")
    return all(getattr(one, f) == getattr(two, f) for f in fields)


class Effects:
    """The rules above, over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, effect: Effect) -> Begun:
        """Commits that a change is intended. Raises StaleToken, AlreadyExists, FailedPrecondition, NotFound."""
        _check(effect)
        async with self._store.transaction() as tx:
            if await tx.target(effect.target) is None:
                raise missing_target(effect.target)
            check_holder(await tx.lock_lease(effect.target), effect.run_id, effect.fencing_token)
            unfinished = await tx.unfinished_restore(effect.target)
            if unfinished is not None:
                raise FailedPrecondition(
                    f"target {effect.target} is in the middle of a restore to generation {unfinished.generation} "
                    f"of run {unfinished.run_id}; repeat it before anything else",
                    field="target",
                )
            known = await tx.effect(effect.key)
            if known is not None and not same_change(known, effect):
                raise AlreadyExists("this key belongs to another change", field="idempotency_key")
            if known is not None and known.state is EffectState.UNDONE:
                # A late delivery of an old command: its change was taken back, and its attempt is over.
                raise FailedPrecondition(
                    f"effect {effect.key} was undone; a new attempt has a key of its own", field="idempotency_key"
                )
            if known is None:
                begun = Begun(effect=await tx.insert_effect(replace(effect, state=EffectState.INTENDED)), before=False)
            elif known.state is EffectState.INTENDED and known.fencing_token != effect.fencing_token:
                taken_over = replace(known, fencing_token=effect.fencing_token)
                begun = Begun(effect=await tx.update_effect(taken_over), before=True)
            else:
                begun = Begun(effect=known, before=True)
        await faultpoint(AFTER_BEGIN)
        return begun

    async def finish(self, key: str, state: EffectState, exit_code: int) -> Effect:
        """Records what came of a change. Also for a run that lost its lease: what happened, happened."""
        check_key(key)
        if state is EffectState.INTENDED:
            raise InvalidArgument("state is applied, failed or undone", field="state")
        async with self._store.transaction() as tx:
            known = await tx.effect(key)
            if known is None:
                raise NotFound("no effect was begun under this key", field="idempotency_key")
            ended = advance(known, state, exit_code)
            if ended != known:
                ended = await tx.update_effect(ended)
        await faultpoint(AFTER_FINISH)
        return ended

    async def of_run(self, run_id: str) -> list[Effect]:
        """A run's effects in the order in which they were intended."""
        check_run_id(run_id)
        async with self._store.transaction() as tx:
            return list(await tx.effects(run_id))


def _check(effect: Effect) -> None:
    check_key(effect.key)
    check_run_id(effect.run_id, "effect.run_id")
    for field in ("item_id", "action_hash"):
        if not 0 < len(getattr(effect, field)) <= _TEXT_MAX:
            raise InvalidArgument(f"effect.{field} has 1 to {_TEXT_MAX} characters", field=f"effect.{field}")
    if effect.attempt < 0:
        raise InvalidArgument("effect.attempt counts from 0", field="effect.attempt")
