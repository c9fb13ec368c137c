"""One HTTP client an upstream: sends a shaped request, and turns what goes wrong into typed errors."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from anneal_runtime.errors import AnnealError, DeadlineExceeded, InvalidArgument, RateLimited, Unavailable, cut

from anneal_gateway.errors import UpstreamMisconfigured
from anneal_gateway.profiles import Profile

# Key in an error's details: "yes" where the upstream certainly did no work, so that nothing is charged.
NOTHING_USED = "nothing_used"
_FREE = {NOTHING_USED: "yes"}

_PATH = "/chat/completions"
# An answer longer than this is no chat completion.
_MAX_ANSWER_BYTES = 16 << 20
_MAX_FOREIGN_TEXT = 300


class Upstream:
    """A model server. Methods raise AnnealError classes; retryable ones mean that the server itself failed."""

    def __init__(self, name: str, profile: Profile, api_key: str) -> None:
        self.name = name
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(profile.timeout_s, connect=profile.connect_timeout_s)
        # trust_env off: a proxy variable meant for downloads must not see prompts.
        self._client = httpx.AsyncClient(base_url=profile.base_url, headers=headers, timeout=timeout, trust_env=False)

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer, checked to be a chat completion and nothing more."""
        async with self._sent(body) as response:
            raw = await _read(response)
        try:
            answer = json.loads(raw)
        except ValueError as e:
            raise Unavailable(f"Model server {self.name} answered with something that is not JSON.") from e
        if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list) or not answer["choices"]:
            raise Unavailable(f"Model server {self.name} answered without choices.")
        return answer

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """The answer's server-sent events line by line. The status is known, and good, on entry."""
        async with self._sent(body) as response:
            yield self._lines(response)

    async def _lines(self, response: httpx.Response) -> AsyncIterator[str]:
        with _translated(self.name):
            async for line in response.aiter_lines():
                yield line

    @asynccontextmanager
    async def _sent(self, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        with _translated(self.name):
            async with self._client.stream("POST", _PATH, json=body) as response:
                if response.status_code != 200:
                    raise _refusal(self.name, response, await _read(response))
                yield response

    async def close(self) -> None:
        await self._client.aclose()


class _translated:
    """Turns httpx's errors into ours."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, e: BaseException | None, trace: object) -> None:
        if isinstance(e, httpx.ConnectTimeout | httpx.ConnectError):
            problem = f"Model server {self._name} cannot be reached: {cut(str(e), _MAX_FOREIGN_TEXT)}"
            raise Unavailable(problem, details=_FREE) from e
        if isinstance(e, httpx.TimeoutException):
            raise DeadlineExceeded(f"Model server {self._name} did not answer in time.") from e
        if isinstance(e, httpx.HTTPError):
            raise Unavailable(f"Model server {self._name} broke off: {cut(str(e), _MAX_FOREIGN_TEXT)}") from e


async def _read(response: httpx.Response) -> bytes:
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > _MAX_ANSWER_BYTES:
            raise Unavailable("The model server's answer has no end.")
    return bytes(raw)


def _refusal(name: str, response: httpx.Response, raw: bytes) -> AnnealError:
    status, text = response.status_code, cut(_message(raw), _MAX_FOREIGN_TEXT)
    if status in (401, 403):
        return UpstreamMisconfigured(
            f"Model server {name} refuses our key ({status}).", field="api_key_env", details=_FREE
        )
    if status == 404:
        problem = f"Model server {name} does not know the model or the path: {text}"
        return UpstreamMisconfigured(problem, field="model", details=_FREE)
    if status == 429:
        wait = response.headers.get("retry-after", "")
        details = {**_FREE, "retry_after_s": wait} if wait.isdigit() else _FREE
        return RateLimited(f"Model server {name} is busy: {text}", details=details)
    if status in (408, 504):
        return DeadlineExceeded(f"Model server {name} ran out of time: {text}")
    if 400 <= status < 500:
        return InvalidArgument(f"Model server {name} refuses the request ({status}): {text}", details=_FREE)
    return Unavailable(f"Model server {name} failed ({status}): {text}", details=_FREE)


def _message(raw: bytes) -> str:
    """The message in an error body of any of the usual shapes."""
    text = raw.decode("utf-8", errors="replace")
    try:
        data = json.loads(text)
    except ValueError:
        return text
    inner = data.get("error", data) if isinstance(data, dict) else data
    return str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
