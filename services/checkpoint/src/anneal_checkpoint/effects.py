"""The effect ledger: that a change is intended is committed before it happens, and what came of it after.

The effect's key is hash(run, item, attempt, action) and is the idempotency key of all calls: repeating one gives the
recorded state, and another action under the same key is refused.
"""

from dataclasses import dataclass, replace

from anneal_runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from anneal_runtime.faults import declare, faultpoint

from anneal_checkpoint.checks import check_key, check_run_id
from anneal_checkpoint.errors import missing_target
from anneal_checkpoint.leases import check_holder, check_order, take_command
from anneal_checkpoint.model import Effect, EffectState
from anneal_checkpoint.store import Store, Tx

AFTER_BEGIN = declare("checkpoint.after_effect_begun")
AFTER_START = declare("checkpoint.after_effect_started")
AFTER_FINISH = declare("checkpoint.after_effect_finished")

# What may follow a state; nothing else does. README.md has the same table.
NEXT: dict[EffectState, frozenset[EffectState]] = {
    # It can end without having been seen at work: most do so within milliseconds.
    EffectState.INTENDED: frozenset(
        {EffectState.STARTED, EffectState.APPLIED, EffectState.REVERTED, EffectState.UNKNOWN}
    ),
    EffectState.STARTED: frozenset({EffectState.APPLIED, EffectState.REVERTED, EffectState.UNKNOWN}),
    # Unknown: the script that takes it back was cut off, or failed.
    EffectState.APPLIED: frozenset({EffectState.REVERTED, EffectState.UNKNOWN}),
    # Somebody found out after all, or a restore made the question idle.
    EffectState.UNKNOWN: frozenset({EffectState.APPLIED, EffectState.REVERTED}),
    EffectState.REVERTED: frozenset(),
}
# What a state may follow on.
BEFORE = {state: frozenset(s for s, following in NEXT.items() if state in following) for state in EffectState}
OPEN = frozenset({EffectState.INTENDED, EffectState.STARTED})
ENDS = frozenset({EffectState.APPLIED, EffectState.REVERTED, EffectState.UNKNOWN})

_TEXT_MAX = 300


@dataclass(frozen=True, kw_only=True)
class Begun:
    """before: the effect was recorded by an earlier call; what is on the target must be read first."""

    effect: Effect
    before: bool
    ledger: str
    lease_left_s: float


def advance(effect: Effect, state: EffectState, exit_code: int = 0, detail: str = "") -> Effect:
    """The effect after it came to state; the same one where it was there already. Raises FailedPrecondition."""
    if state is effect.state and (exit_code == effect.exit_code or state is not EffectState.APPLIED):
        return effect
    if state not in NEXT[effect.state]:
        raise FailedPrecondition(
            f"effect {effect.key} is {effect.state} with exit code {effect.exit_code}; it cannot become {state} "
            f"with exit code {exit_code}",
            field="state",
        )
    # The exit code stays that of the run of the script, whatever becomes of its work.
    came_to = exit_code if state is EffectState.APPLIED else effect.exit_code
    return replace(effect, state=state, exit_code=came_to, detail=detail)


def same_change(one: Effect, two: Effect) -> bool:
    """True where both records are of the same change, whatever came of it."""
    fields = ("key", "target", "run_id", "item_id", "attempt", "action_hash", "undoes")
    return all(getattr(one, f) == getattr(two, f) for f in fields)


class Effects:
    """The rules above, over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, effect: Effect) -> Begun:
        """Commits that a change is intended. Raises StaleToken, AlreadyExists, FailedPrecondition, NotFound."""
        _check(effect)
        effect = replace(effect, state=EffectState.INTENDED)
        async with self._store.glance() as tx:
            usual = await tx.begin_effect(effect)
        if usual is None:
            begun = await self._begin(effect)
        else:
            begun = Begun(effect=usual[0], before=False, ledger=usual[1], lease_left_s=usual[2])
        await faultpoint(AFTER_BEGIN)
        return begun

    async def _begin(self, effect: Effect) -> Begun:
        """By the rules, one after the other: it was begun before, or something is in its way."""
        async with self._store.transaction() as tx:
            lease = await tx.lock_lease(effect.target)
            found = await tx.grounds(effect.target, effect.key)
            if found.target is None:
                raise missing_target(effect.target)
            check_holder(lease, effect.run_id, effect.fencing_token)
            if found.unfinished is not None:
                raise FailedPrecondition(
                    f"target {effect.target} is in the middle of a restore to generation {found.unfinished.generation} "
                    f"of run {found.unfinished.run_id}; repeat it before anything else",
                    field="target",
                )
            check_order(lease, effect.command_seq)
            # Locked where it is there: its end may be recorded at the same moment.
            known = await tx.effect(effect.key) if found.known is not None else None
            if known is not None:
                await take_command(tx, lease, effect.command_seq)
            return Begun(
                effect=await _begun(tx, effect, known),
                before=known is not None,
                ledger=found.ledger,
                lease_left_s=lease.left_s,
            )

    async def start(self, key: str) -> Effect:
        """Records that the target was seen at work on it. Raises NotFound, FailedPrecondition."""
        check_key(key)
        async with self._store.transaction() as tx:
            started = await _come_to(tx, await _known(tx, key), EffectState.STARTED)
        await faultpoint(AFTER_START)
        return started

    async def finish(self, key: str, state: EffectState, exit_code: int, detail: str = "") -> Effect:
        """Records what came of a change. Also for a run that lost its lease: what happened, happened."""
        check_key(key)
        if state not in ENDS:
            raise InvalidArgument(f"state is one of {', '.join(sorted(ENDS))}", field="state")
        detail = detail[:_TEXT_MAX]
        async with self._store.glance() as tx:
            ended = await tx.end_effect(key, state, exit_code, detail, after=BEFORE[state])
        if ended is None:
            ended = await self._finish(key, state, exit_code, detail)
        await faultpoint(AFTER_FINISH)
        return ended

    async def _finish(self, key: str, state: EffectState, exit_code: int, detail: str) -> Effect:
        """Where it is no plain step: told twice, not allowed, or the end of what takes another effect back."""
        async with self._store.transaction() as tx:
            known = await _known(tx, key)
            ended = await _come_to(tx, known, state, exit_code, detail)
            if ended != known and ended.undoes:
                await _settle_undone(tx, ended)
        return ended

    async def of_run(self, run_id: str) -> list[Effect]:
        """A run's effects in the order in which they were intended."""
        check_run_id(run_id)
        async with self._store.transaction() as tx:
            return list(await tx.effects(run_id))


async def _begun(tx: Tx, effect: Effect, known: Effect | None) -> Effect:
    """The record of an intent: a new one, or the known one in the hands of whoever asks now."""
    if known is None:
        return await tx.insert_effect(effect)
    if not same_change(known, effect):
        raise AlreadyExists("this key belongs to another change", field="idempotency_key")
    if known.state in (EffectState.REVERTED, EffectState.UNKNOWN):
        # A late delivery of an old command: its attempt is over.
        raise FailedPrecondition(
            f"effect {effect.key} is {known.state}; a new attempt has a key of its own", field="idempotency_key"
        )
    taken_over = replace(known, fencing_token=effect.fencing_token, command_seq=effect.command_seq)
    return await tx.update_effect(taken_over) if known.state in OPEN and taken_over != known else known


async def _known(tx: Tx, key: str) -> Effect:
    known = await tx.effect(key)
    if known is None:
        raise NotFound("no effect was begun under this key", field="idempotency_key")
    return known


async def _come_to(tx: Tx, known: Effect, state: EffectState, exit_code: int = 0, detail: str = "") -> Effect:
    after = advance(known, state, exit_code, detail)
    return after if after == known else await tx.update_effect(after)


async def _settle_undone(tx: Tx, undo: Effect) -> None:
    """What the end of an undo makes of the change that it takes back."""
    taken_back = await tx.effect(undo.undoes)
    if taken_back is None:
        return  # it was never begun: there was nothing to take back
    if undo.state is EffectState.APPLIED and undo.exit_code == 0:
        await _come_to(tx, taken_back, EffectState.REVERTED, detail="by its undo script")
        return
    how = f"ended with {undo.exit_code}" if undo.state is EffectState.APPLIED else f"is itself {undo.state}"
    if taken_back.state is not EffectState.REVERTED:
        await _come_to(tx, taken_back, EffectState.UNKNOWN, detail=f"the script that takes it back {how}")


def _check(effect: Effect) -> None:
    check_key(effect.key)
    check_run_id(effect.run_id, "effect.run_id")
    for field in ("item_id", "action_hash"):
        if not 0 < len(getattr(effect, field)) <= _TEXT_MAX:
            raise InvalidArgument(f"effect.{field} has 1 to {_TEXT_MAX} characters", field=f"effect.{field}")
    if effect.attempt < 0:
        raise InvalidArgument("effect.attempt counts from 0", field="effect.attempt")
    if effect.undoes:
        check_key(effect.undoes, "effect.undoes")
