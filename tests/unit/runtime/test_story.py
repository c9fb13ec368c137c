"""Places of a run's story: their ids are the same in every process and every version."""

import pytest
from anneal_runtime.story import Place

RUN = Place(run_id="run-1")
ITEM = Place(run_id="run-1", item_id="a")
ATTEMPT = Place(run_id="run-1", item_id="a", attempt=1)


@pytest.mark.parametrize(
    ("place", "span_id"),
    [(RUN, "f6ba2680f072de58"), (ITEM, "4d4fe8f4ca1c1685"), (ATTEMPT, "bfabe489104189ce")],
    ids=repr,
)
def test_whoever_names_a_place_gives_it_the_same_ids(place: Place, span_id: str) -> None:
    assert tuple(f"{n:x}" for n in place.ids) == ("4e65d3fbe8ad6535681b021b30785b12", span_id)


def test_runs_share_no_trace_and_places_no_span() -> None:
    places = [
        Place(run_id=run, item_id=item, attempt=n)
        for run in ("run-1", "run-11")
        for item in ("a", "a1")
        for n in (0, 1, 11)
    ]
    assert len({p.ids[1] for p in places}) == len(places)
    assert len({p.ids[0] for p in places}) == 2
