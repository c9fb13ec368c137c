"""What a role needs to read from the blob store: the scripts of earlier attempts."""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence

from anneal_contracts.work import PastAttempt
from anneal_runtime.errors import NotFound

BlobReader = Callable[[str], Awaitable[bytes]]


async def past_scripts(past: Sequence[PastAttempt], read: BlobReader | None) -> dict[int, str]:
    """Attempt number -> script. A blob that is gone is left out: a prompt without it is poorer, not wrong."""
    found: dict[int, str] = {}
    for attempt in past:
        if read is None or not attempt.content_blob:
            continue
        try:
            found[attempt.number] = script_of(await read(attempt.content_blob))
        except NotFound:
            continue
    return found


async def texts_of(blobs: Iterable[str], read: BlobReader | None) -> dict[str, str]:
    """Blob -> its text; one that is gone is left out."""
    found: dict[str, str] = {}
    for blob in blobs:
        if read is None or not blob:
            continue
        try:
            found[blob] = (await read(blob)).decode("utf-8", errors="replace")
        except NotFound:
            continue
    return found


def script_of(blob: bytes) -> str:
    """The script in a blob, which holds either the bare script or an Action as JSON."""
    text = blob.decode("utf-8", errors="replace")
    if text.startswith("{"):
        try:
            content = json.loads(text).get("content")
        except ValueError:
            return text
        if isinstance(content, str):
            return content
    return text
