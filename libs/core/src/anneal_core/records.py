"""Frozen records, changed fast: a fold changes several an event, and the largest has some sixty fields."""

from dataclasses import Field
from typing import Any, ClassVar, Protocol, TypeVar


class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


R = TypeVar("R", bound=_Record)


def replace(record: R, **changes: Any) -> R:
    """A copy with these fields changed: dataclasses.replace in a tenth of its time.

    For frozen dataclasses without slots and without __post_init__. Raises TypeError for a field that there is not.
    """
    kind = type(record)
    if not changes.keys() <= kind.__dataclass_fields__.keys():
        unknown = ", ".join(sorted(changes.keys() - kind.__dataclass_fields__.keys()))
        raise TypeError(f"{kind.__name__} has no field {unknown}")
    new = object.__new__(kind)
    # Past the frozen record's own guard: nobody else has seen the new one yet.
    new.__dict__.update(record.__dict__)
    new.__dict__.update(changes)
    return new
