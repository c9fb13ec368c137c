"""`python -m tests.support.watched_build`: builds the lab's image unless it is up to date, and keeps the host's state
before and after beside it, so that the tests can show that a build from nothing left the host as it was."""

import json
from pathlib import Path
from typing import Any

from anneal_lab import Lab
from anneal_lab.layout import default_home

from tests.support.host_state import host


def record_of(image: str) -> Path:
    """Where the record of an image's build is."""
    return default_home() / f"watched-build-{image}.json"


def main() -> None:
    """Builds and records; an image that is there already is left alone."""
    before = host()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    image = Lab().build(progress=say)
    if len(lines) > 1:
        record: dict[str, Any] = {"before": before, "after": host(), "progress": lines}
        record_of(image).write_text(json.dumps(record))


if __name__ == "__main__":
    main()
