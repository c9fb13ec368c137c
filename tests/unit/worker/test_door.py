"""The worker's way to the gateway: what it asks, and how often."""

from typing import Any

import pytest
from anneal_contracts.roles import May
from anneal_worker.roles import door as module
from anneal_worker.roles.door import ModelDoor

PROFILE = {
    "name": "default",
    "may": "none",
    "roles": {"worker": {"model": "m", "max_tokens": 9}},
    "context_tokens": 1024,
}


async def test_profiles_are_asked_for_once_in_a_while_and_not_for_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def get(path: str, *, cast_to: Any) -> Any:
        asked.append(path)
        return {"profiles": [PROFILE]}

    door = ModelDoor("http://127.0.0.1:1", "token")
    monkeypatch.setattr(door._client, "get", get)
    for _ in range(3):
        assert (await door.profiles())["default"].may is May.NONE
    assert asked == ["/profiles"]
    monkeypatch.setattr(module, "_KNOWN_S", -1.0)
    door._known_until = 0.0
    await door.profiles()
    await door.profiles()
    assert len(asked) == 3
    await door.close()
