"""Compiled content: opened when it is there, compiled in a process of its own when it is not.

Only the index (some 100 kB) stays in memory; a rule's texts and its OVAL are read when they are asked for.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from anneal_runtime.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from anneal_skillkit.manifest import Manifest

from stig_rhel9.compile import FORMAT
from stig_rhel9.xccdf import RULE_PREFIX

COMPILE_TIMEOUT_S: Final = 120.0
_LOCK_STEP_S: Final = 0.05
Severity = Literal["high", "medium", "low", "unknown"]
_SEVERITIES: Final[Mapping[str, Severity]] = {"high": "high", "medium": "medium", "low": "low"}


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A fix shipped with the content, values resolved, with the content's own marks."""

    text: str
    reboot: bool
    disruption: str
    complexity: str
    strategy: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """How OVAL decides a rule. applicability: tree of the platforms' definitions, None for always."""

    definition: str
    klass: str
    negate: bool
    applicability: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """All that the content says of a rule."""

    id: str
    full_id: str
    title: str
    severity: Severity
    category: str
    description: str
    rationale: str
    check_text: str
    warnings: tuple[str, ...]
    references: Mapping[str, Sequence[str]]
    fixes: Mapping[str, Fix]
    check: Check | None


@dataclass(frozen=True, kw_only=True)
class Brief:
    """A rule in the index."""

    full_id: str
    title: str
    severity: Severity
    category: str


class Content:
    """One compiled datastream and profile."""

    def __init__(self, folder: Path, datastream: Path, tailoring: bytes) -> None:
        index = json.loads((folder / "index.json").read_bytes())
        self.folder = folder
        self.datastream = datastream
        self.tailoring = tailoring
        self.sha256: str = index["content_sha256"]
        self.tailoring_sha256: str = index["tailoring_sha256"]
        self.profile: str = index["profile"]
        self.profile_title: str = index["profile_title"]
        self.version: str = index["benchmark_version"]
        self.rules: Mapping[str, Brief] = {
            name: Brief(
                full_id=row["full_id"],
                title=row["title"],
                severity=_severity(row["severity"]),
                category=sys.intern(row["category"]),
            )
            for name, row in index["rules"].items()
        }

    def normal(self, item_id: str) -> str:
        """The short id of a rule that may be given in full."""
        return item_id.removeprefix(RULE_PREFIX)

    def rule(self, item_id: str) -> Rule:
        """A rule's record. Raises InvalidArgument for an id that the profile does not select."""
        name = self.normal(item_id)
        if name not in self.rules:
            raise InvalidArgument(f"the profile selects no rule {item_id!r}", field="item_id")
        row = json.loads((self.folder / "rules" / f"{name}.json").read_bytes())
        check = row.pop("check")
        return Rule(
            **{
                **row,
                "severity": _severity(row["severity"]),
                "warnings": tuple(row["warnings"]),
                "fixes": {kind: Fix(**fix) for kind, fix in row["fixes"].items()},
            },
            check=check and Check(klass=check.pop("class"), **check),
        )

    def values(self) -> Mapping[str, str]:
        """What the profile and the tailoring set each variable to, by its short id."""
        values: dict[str, str] = json.loads((self.folder / "values.json").read_bytes())
        return values

    def oval(self, item_id: str) -> bytes:
        """The rule's cut-down OVAL file; empty where the rule has none."""
        path = self.folder / "oval" / f"{self.normal(item_id)}.xml"
        return path.read_bytes() if path.is_file() else b""


class ContentStore:
    """Finds the datastream named by the manifest and keeps its compiled forms in a cache folder."""

    def __init__(self, manifest: Manifest, folder: Path, cache: Path) -> None:
        self._manifest = manifest
        self._folder = folder
        self._cache = cache
        self._open: dict[str, Content] = {}
        self._digests: dict[tuple[str, int, int], str] = {}
        self._lock = asyncio.Lock()

    async def get(self, profile: str, tailoring: bytes) -> Content:
        """The content for a profile (empty: the manifest's default). The first call compiles it, about 1 s.

        Raises InvalidArgument naming `profile` or `tailoring`, FailedPrecondition when the datastream is missing.
        """
        profile = profile or self._manifest.default_profile
        datastream = self._datastream()
        async with self._lock:
            key = self._key(datastream, profile, tailoring)
            if key not in self._open:
                folder = self._cache / key
                if not (folder / "index.json").is_file():
                    await self._compile(datastream, profile, tailoring, folder)
                self._open[key] = Content(folder, datastream, tailoring)
            return self._open[key]

    def _datastream(self) -> Path:
        candidates = self._manifest.settings.get("datastream")
        paths = [Path(str(p)) for p in candidates] if isinstance(candidates, list) else []
        for path in paths:
            where = path if path.is_absolute() else self._folder / path
            if where.is_file():
                return where
        tried = ", ".join(map(str, paths)) or "none"
        raise FailedPrecondition(
            f"no SCAP datastream on this machine (looked for {tried}): install the package ssg-nondebian or "
            "scap-security-guide",
            field="content",
        )

    def _key(self, datastream: Path, profile: str, tailoring: bytes) -> str:
        stat = datastream.stat()
        known = (str(datastream), stat.st_mtime_ns, stat.st_size)
        if known not in self._digests:
            with datastream.open("rb") as f:
                self._digests[known] = hashlib.file_digest(f, "sha256").hexdigest()
        parts = (str(FORMAT), self._digests[known], profile, hashlib.sha256(tailoring).hexdigest())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    async def _compile(self, datastream: Path, profile: str, tailoring: bytes, out: Path) -> None:
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The services share the cache: one compiles, the others wait for what it made.
        async with _locked(out.parent / ".lock"):
            if (out / "index.json").is_file():
                return
            with tempfile.NamedTemporaryFile(prefix="tailoring-", suffix=".xml") as extra:
                extra.write(tailoring)
                extra.flush()
                await _run_compiler([str(datastream), profile, str(out), *([extra.name] if tailoring else [])])


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Holds a lock that ends with this process; waits for its holder at the most as long as compiling may take."""
    give_up = time.monotonic() + COMPILE_TIMEOUT_S
    with path.open("a") as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() > give_up:
                    raise DeadlineExceeded(f"another process has held {path} for {COMPILE_TIMEOUT_S:.0f} s") from e
                await asyncio.sleep(_LOCK_STEP_S)
        yield


async def _run_compiler(arguments: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stig_rhel9.compile", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    try:
        _, words = await asyncio.wait_for(process.communicate(), COMPILE_TIMEOUT_S)
    except TimeoutError as e:
        raise DeadlineExceeded(f"compiling {arguments[0]} took more than {COMPILE_TIMEOUT_S:.0f} s") from e
    finally:
        # Also when our caller gave up: nobody else would end it.
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise _compile_error(process.returncode, words.decode("utf-8", "replace"))


def _compile_error(code: int, words: str) -> InvalidArgument | FailedPrecondition:
    try:
        told = json.loads(words.strip().splitlines()[-1])
        field, message = str(told["field"]), str(told["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        said = " ".join(words.split())[-300:] or "without a word"
        return FailedPrecondition(f"the content cannot be compiled: the compiler {how}: {said}", field="content")
    if field in ("tailoring", "profile"):
        return InvalidArgument(message, field=field)
    return FailedPrecondition(message, field=field)


def _severity(word: str) -> Severity:
    return _SEVERITIES.get(word, "unknown")
