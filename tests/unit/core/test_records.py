"""Changing a record."""

import dataclasses

import pytest
from anneal_core.records import replace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    x: int = 0
    y: int = 0


def test_a_changed_record_is_what_the_standard_library_makes_and_the_old_one_stays() -> None:
    point = Point(x=1, y=2)
    assert replace(point, y=3) == dataclasses.replace(point, y=3) == Point(x=1, y=3)
    assert point == Point(x=1, y=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        replace(point, y=3).x = 7  # type: ignore[misc]


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="Point has no field z"):
        replace(Point(), z=1)
