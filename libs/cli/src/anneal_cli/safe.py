"""Text from targets on a person's terminal: control characters become visible marks, so that none of them acts."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

# C0 without tab and newline, DEL, and C1: what a terminal could take for a command.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text with each control character as its picture (U+2400 and on) or as \\xNN."""
    return _CONTROL.sub(lambda m: _picture(ord(m[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\\x{code:02x}"


def make_visible(message: "Message") -> None:
    """Does the same to every string inside a protobuf message, in place."""
    for field, value in message.ListFields():
        repeated = field.is_repeated
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue  # names and figures of our own
        if field.type == field.TYPE_MESSAGE:
            for one in value if repeated else [value]:
                make_visible(one)
        elif field.type == field.TYPE_STRING:
            if repeated:
                value[:] = [visible(text) for text in value]
            else:
                setattr(message, field.name, visible(value))
