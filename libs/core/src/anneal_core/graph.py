"""The items of a round as a graph: what may not be planned, and the waves in which it is worked."""

from collections import deque
from collections.abc import Mapping, Sequence

from anneal_contracts.facts import ItemDetail


def problem(details: Mapping[str, ItemDetail], known: frozenset[str]) -> str:
    """What makes these items impossible to plan, with the path of the cycle or the name that nobody knows; or empty.

    known: ids of items that are no work now (they hold, or do not apply), on which an item may depend all the same.
    """
    for item_id in sorted(details):
        for other in details[item_id].depends_on:
            if other not in details and other not in known:
                return f"{item_id} depends on {other}, which does not exist"
    path = _cycle(details)
    return f"the items depend on each other in a circle: {' -> '.join(path)}" if path else ""


def _cycle(details: Mapping[str, ItemDetail]) -> list[str]:
    """A circle, its first item also its last; empty: there is none. Depth first, without recursion."""
    done: set[str] = set()
    for start in sorted(details):
        if start in done:
            continue
        path, on_path = [start], {start}
        stack = [(start, iter(details[start].depends_on))]
        while stack:
            current, rest = stack[-1]
            following = next((i for i in rest if i in details and i not in done), None)
            if following is None:
                done.add(current)
                stack.pop()
                on_path.discard(path.pop())
            elif following in on_path:
                return [*path[path.index(following) :], following]
            else:
                on_path.add(following)
                stack.append((following, iter(details[following].depends_on)))
                path.append(following)
    return []


def waves(order: Sequence[str], details: Mapping[str, ItemDetail]) -> tuple[tuple[str, ...], ...]:
    """Sets of items that do not depend on each other, each after the waves it depends on; order holds inside a wave.

    Dependencies that are not in order have no say here. Raises ValueError for a circle.
    """
    chosen = set(order)
    needs = {i: chosen.intersection(details[i].depends_on) for i in order}
    wanted_by: dict[str, list[str]] = {i: [] for i in order}
    for item_id, others in needs.items():
        for other in others:
            wanted_by[other].append(item_id)
    level = dict.fromkeys(order, 0)
    ready = deque(i for i in order if not needs[i])
    settled = 0
    while ready:
        done = ready.popleft()
        settled += 1
        for item_id in wanted_by[done]:
            level[item_id] = max(level[item_id], level[done] + 1)
            needs[item_id].discard(done)
            if not needs[item_id]:
                ready.append(item_id)
    if settled < len(level):
        raise ValueError("the items depend on each other in a circle")
    found: list[list[str]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for item_id in order:
        found[level[item_id]].append(item_id)
    return tuple(tuple(wave) for wave in found)


def suggested(order: Sequence[str], after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """order, with each item moved behind those that earlier runs saw undo it; what no suggestion names stays in place.

    A suggestion that contradicts an earlier one is left out.
    """
    place = {item_id: n for n, item_id in enumerate(order)}
    behind: dict[str, set[str]] = {i: set() for i in order}
    for item_id in order:
        for other in after.get(item_id, ()):
            if other in place and other != item_id and not _reaches(behind, other, item_id):
                behind[item_id].add(other)
    found: dict[str, None] = {}
    held: list[str] = []
    for item_id in order:
        held.append(item_id)
        while ready := next((i for i in held if behind[i] <= found.keys()), ""):
            held.remove(ready)
            found[ready] = None
    return tuple(found)


def _reaches(behind: Mapping[str, set[str]], start: str, goal: str) -> bool:
    """Whether start already has to come after goal."""
    seen, todo = set(), [start]
    while todo:
        current = todo.pop()
        if current == goal:
            return True
        if current not in seen:
            seen.add(current)
            todo += behind[current]
    return False
