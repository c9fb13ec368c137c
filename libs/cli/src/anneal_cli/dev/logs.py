"""The combined log: one JSON line an entry in the file, one short line an entry for people."""

import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from anneal_runtime import private

MAX_BYTES = 64 << 20
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_SHORT = {"DEBUG": "debug", "INFO": "info", "WARNING": "WARN", "ERROR": "ERROR", "CRITICAL": "FATAL"}
# Shown in their own column, or of no use on a console.
_HIDDEN = frozenset(
    {
        "ts",
        "level",
        "service",
        "logger",
        "msg",
        "trace_id",
        "span_id",
        "exc",
        "exc_info",
        "stack",
        "color_message",
        "taskName",
    }
)


def parse(line: str, service: str) -> dict[str, Any]:
    """One line of a child as an entry. A line that is no JSON object becomes an entry that says only that."""
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and "msg" in entry:
            return {**entry, "service": service}
    return {"ts": datetime.now(UTC).isoformat(), "level": _guess(line), "service": service, "msg": line}


def _guess(line: str) -> str:
    """Level of a foreign line: Postgres and NATS mark theirs, a Python traceback speaks for itself."""
    if any(mark in line for mark in ("FATAL", "PANIC", "[FTL]")):
        return "CRITICAL"
    if any(mark in line for mark in ("ERROR:", "[ERR]", "Traceback", "Error:")):
        return "ERROR"
    return "WARNING" if any(mark in line for mark in ("WARNING", "[WRN]")) else "INFO"


def level_of(entry: Mapping[str, Any]) -> int:
    """Numeric level as in logging."""
    return _LEVELS.get(str(entry.get("level", "INFO")).upper(), 20)


def short(entry: Mapping[str, Any]) -> str:
    """One line for people: time, service, level, message, the extra fields."""
    level = _SHORT.get(str(entry.get("level", "INFO")).upper(), str(entry.get("level")))
    extra = " ".join(
        f"{key}={_brief(value)}" for key, value in entry.items() if key not in _HIDDEN and value not in ("", None)
    )
    error = entry.get("exc") or entry.get("exc_info")
    last = f" | {str(error).strip().splitlines()[-1]}" if error else ""
    message = str(entry.get("msg", "")).replace("\n", " ")[:400]
    return f"{_clock(entry)} {entry.get('service', '?'):<10} {level:<5} {message}{'  ' + extra if extra else ''}{last}"


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _clock(entry: Mapping[str, Any]) -> str:
    """Local time of day of an entry; ts may be ISO 8601 or Unix seconds."""
    ts = entry.get("ts")
    try:
        moment = (
            datetime.fromtimestamp(ts) if isinstance(ts, int | float) else datetime.fromisoformat(str(ts)).astimezone()
        )
    except (ValueError, OverflowError):
        return "--:--:--"
    return moment.strftime("%H:%M:%S")


class LogFile:
    """Appends entries; keeps one older file once the newest is 64 MiB."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._opened()

    def write(self, entry: Mapping[str, Any]) -> None:
        """A full disk must not end anneal: what cannot be written is dropped."""
        try:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            if self._file.tell() > MAX_BYTES:
                self._rotate()
        except OSError:
            return

    def _rotate(self) -> None:
        self._file.close()
        self._path.replace(self._path.with_suffix(".log.1"))
        self._file = self._opened()

    def _opened(self) -> TextIO:
        return open(self._path, "a", buffering=1, opener=private.opener)

    def close(self) -> None:
        self._file.close()


def read_entries(path: Path, *, service: str | None, last: int) -> list[dict[str, Any]]:
    """The last entries of the log (of one service, or of all)."""
    with path.open(errors="replace") as file:
        return list(deque(_select(file, service), maxlen=last))


def follow_entries(path: Path, *, service: str | None, pause_s: float = 0.2) -> Iterator[dict[str, Any]]:
    """Entries as they are written from now on, over a rotation too. Ends never: the reader interrupts."""
    file = path.open(errors="replace")
    try:
        file.seek(0, os.SEEK_END)
        pending = ""
        while True:
            # Looked at before reading: once the file was replaced, nothing more is written to the old one.
            replaced = path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino
            text = file.read()
            *lines, pending = (pending + text).split("\n")
            yield from _select(lines, service)
            if replaced:
                file.close()
                file = path.open(errors="replace")
            elif not text:
                time.sleep(pause_s)
    finally:
        file.close()


def _select(lines: Iterable[str], service: str | None) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and service in (None, entry.get("service")):
            yield entry
