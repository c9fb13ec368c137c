"""A model that answers at once: just enough of an OpenAI-compatible server, without a web framework's own cost."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

SCRIPT: Final = "#!/bin/bash\nset -euo pipefail\nprintf 'Option %s\\n' '{id}' > /etc/stub.d/{id}.conf\n"
_REFLECTION: Final = {
    "words": "Both fixes ran and the check still fails.",
    "mechanism": "A later file overrides the setting.",
    "lesson": "Look for drop-in files first.",
    "bans": ["Editing the main file alone."],
    "banned_text": [],
    "certainty": "medium",
}
_PLAN: Final = {
    "diagnosis": "The setting is absent.",
    "steps": ["Write the file."],
    "look_at": [],
}


@contextmanager
def model() -> Iterator[str]:
    """Serves on a free port of loopback, in a thread; yields the address to give to `anneal dev --model-url`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(_serve, "127.0.0.1", 0), loop)
        yield f"http://127.0.0.1:{starting.result().sockets[0].getsockname()[1]}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, for as many requests as come."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"\r\ncontent-length: *(\d+)", head)
            body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
            writer.write(_response(answer(body) if body else {"object": "list", "data": []}))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _response(document: Mapping[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """A good script for an item whose id begins with `model`, and for all others that a person is needed."""
    content = json.dumps(_content(body))
    return {
        "id": "stub",
        "object": "chat.completion",
        "model": "stub",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
    }


def _content(body: Mapping[str, Any]) -> Mapping[str, Any]:
    contract = body["response_format"]["json_schema"]
    found = re.search(r"^Id: (\S+)$", body["messages"][-1]["content"], re.MULTILINE)
    item = found[1] if found else ""
    able = item.startswith("model")
    missing = "" if able else "The name of the site's log host."
    match contract["name"]:
        case "Reflection":
            return _REFLECTION
        case "ItemChoice":
            return {"item_id": contract["schema"]["properties"]["item_id"]["enum"][0], "reason": "It is the first."}
        case "ItemPlan":
            return {**_PLAN, "approach": "Add it." if able else "", "missing_input": missing}
        case "ArchitectDecision":
            told = {"decision": "ESCALATE", "reason": "No script helps."}
            return {**_PLAN, **told, "diagnosis": "", "approach": "", "steps": [], "missing_input": missing}
    return {
        "analysis": "The setting is absent, and the script adds it.",
        "missing_input": missing,
        "title": "Add the setting",
        "script": SCRIPT.format(id=item) if able else "",
        "undo": "",
        "expected_effect": "The check finds the setting.",
        "risk": "low",
        "risks_reach": False,
        "needs_reboot": False,
    }
