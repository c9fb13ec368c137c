"""Reads an exported event log (JSON lines): the same entries that the store holds, checked without a server."""

import json
from collections.abc import Iterator
from pathlib import Path

from anneal_core.chain import Event
from pydantic import ValidationError

from anneal_cli.exits import CliError, ExitCode


def read_events(path: Path) -> Iterator[Event]:
    """The events in the order of the lines. Raises CliError that names the first line which is no event."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield Event.model_validate(json.loads(line))
            except (ValueError, ValidationError) as e:
                what = e.errors()[0]["msg"] if isinstance(e, ValidationError) else str(e)
                raise CliError(
                    message=f"{path.name} line {number} is no event of a log: {what}",
                    code=ExitCode.NOT_HELD,
                    field="--file",
                    hint="the log was damaged, or is not one: anneal report RUN -o run.jsonl writes one",
                ) from e
