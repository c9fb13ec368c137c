"""Lengths of time as people write them."""

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


def seconds_of(text: str) -> int:
    """Seconds of 90, 90s, 30m, 2h, 1h30m. Raises ValueError."""
    if not text or not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s?)?", text):
        raise ValueError(f"not a length of time: {text[:40]!r}; write for example 90s, 30m, 1h30m")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms]?)", text))
