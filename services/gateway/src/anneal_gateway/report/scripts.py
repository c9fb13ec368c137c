"""The script in a blob, which holds either exactly what runs or an Action as JSON."""

import json


def script_of(blob: bytes) -> str:
    """Returns the script as text; bytes that are no UTF-8 are shown as replacement marks."""
    text = blob.decode("utf-8", errors="replace")
    if text.startswith("{"):
        try:
            content = json.loads(text).get("content")
        except ValueError:
            return text
        if isinstance(content, str):
            return content
    return text
