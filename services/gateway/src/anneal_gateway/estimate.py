"""How many tokens a prompt can take at the most, without its tokenizer."""

import json
from collections.abc import Mapping
from typing import Any

from anneal_runtime.errors import InvalidArgument

# What chat templates put around one message, and around the whole; generous for every template we know.
_PER_MESSAGE = 16
_PER_CALL = 64


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """An upper bound of the prompt's tokens. Raises InvalidArgument for content that cannot be bounded.

    Tokenizers with a byte fallback never make more tokens than the text has UTF-8 bytes; texts usually take a quarter.
    """
    total = _PER_CALL
    for i, message in enumerate(body["messages"]):
        total += _PER_MESSAGE + len(_text(message.get("content"), f"messages.{i}.content").encode())
        total += len(json.dumps(message.get("tool_calls") or "").encode()) + len(
            str(message.get("name") or "").encode()
        )
    # Templates print tools into the prompt, and some print the response format too.
    for key in ("tools", "functions", "response_format"):
        if body.get(key):
            total += len(json.dumps(body[key], ensure_ascii=False).encode())
    return total


def _text(content: Any, field: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    raise InvalidArgument("Only text can be sent to a model.", field=field)
