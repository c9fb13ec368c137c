"""How commands speak: to people through rich, to programs as JSON."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])


def console(*, stderr: bool = False) -> "Console":
    """A rich console: colour only on a terminal; 80 columns and wider where the output is no terminal."""
    from rich.console import Console

    plain = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not plain.is_terminal and "COLUMNS" not in _environ():
        return Console(stderr=stderr, highlight=False, width=100)
    return plain


def _environ() -> dict[str, str]:
    import os

    return dict(os.environ)


def emit_json(value: Any) -> None:
    """Writes one JSON document to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(data: Any, text: str, *, as_json: bool) -> None:
    """The answer in the form that was asked for."""
    if as_json:
        emit_json(data)
    else:
        click.echo(text)


def as_data(message: "Message") -> dict[str, Any]:
    """A protobuf message as JSON data: proto field names, numbers as numbers, absent fields with their defaults."""
    from google.protobuf.json_format import MessageToDict

    data: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return data


def json_option(command: F) -> F:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def seconds(value: float) -> str:
    """A duration for people: 0.42 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
