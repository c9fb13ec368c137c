"""What failed attempts taught, and how long items took: recorded with a run, recalled for such a machine."""

import asyncpg
import pytest
from anneal.memory.v1 import memory_pb2 as pb
from anneal_runtime.errors import AlreadyExists, InvalidArgument, NotFound

from tests.integration.memory.conftest import EL9, Serve, Stub

LESSON = pb.Lesson(
    item_id="rule-1",
    lesson="Look for drop-ins.",
    mechanism="A later file wins.",
    bans=["Editing it."],
    certainty="high",
)


def record(key: str, *, fingerprint: str = EL9, run: str = "run-1", **taught: object) -> pb.RecordRequest:
    return pb.RecordRequest(idempotency_key=key, run_id=run, skill="s", fingerprint=fingerprint, **taught)  # type: ignore[arg-type]


def recall(*items: str, fingerprint: str = EL9, categories: tuple[str, ...] = ()) -> pb.RecallRequest:
    return pb.RecallRequest(skill="s", fingerprint=fingerprint, item_ids=items, categories=categories)


async def lessons(stub: Stub, *items: str, fingerprint: str = EL9) -> list[pb.Lesson]:
    return list((await stub.Recall(recall(*items, fingerprint=fingerprint))).lessons)


async def test_a_lesson_comes_back_for_its_item_on_such_a_machine_only(stub: Stub) -> None:
    await stub.Record(record("k", lessons=[LESSON]))
    (told,) = await lessons(stub, "rule-2", "rule-1")
    assert len(told.id) == 32
    told.ClearField("id")
    assert told == pb.Lesson(**{f.name: v for f, v in LESSON.ListFields()}, run_id="run-1")
    assert await lessons(stub, "rule-1", fingerprint="another") == []


async def test_the_same_lesson_of_two_runs_is_one_and_the_newest_come_first_up_to_the_bound(serve: Serve) -> None:
    async with serve(lessons_per_item=2) as stub:
        for n in range(3):
            other = pb.Lesson(item_id="rule-1", lesson=f"lesson {n}", mechanism="m", certainty="low")
            await stub.Record(record(f"k{n}", run=f"run-{n}", lessons=[LESSON, other]))
        told = await lessons(stub, "rule-1")
        assert {x.lesson for x in told} == {"Look for drop-ins.", "lesson 2"}
        assert {x.run_id for x in told} == {"run-2"}


async def test_a_lesson_that_a_person_forgets_stays_forgotten(stub: Stub) -> None:
    await stub.Record(record("k", lessons=[LESSON]))
    (told,) = await lessons(stub, "rule-1")
    await stub.Forget(pb.ForgetRequest(idempotency_key="f", tip_id=told.id))
    await stub.Record(record("k2", run="run-2", lessons=[LESSON]))
    assert await lessons(stub, "rule-1") == []
    with pytest.raises(NotFound):
        await stub.Forget(pb.ForgetRequest(idempotency_key="g", tip_id="0" * 32))


async def test_an_old_lesson_runs_out_as_a_ban_does(stub: Stub, postgres_dsn: str) -> None:
    await stub.Record(record("k", lessons=[LESSON]))
    conn = await asyncpg.connect(postgres_dsn)
    await conn.execute("UPDATE memory.lessons SET seen_at = now() - interval '91 days'")
    await conn.close()
    assert await lessons(stub, "rule-1") == []


async def usual(stub: Stub, *items: str, categories: tuple[str, ...] = ()) -> dict[str, float]:
    answer = await stub.Recall(recall(*items, fingerprint="any", categories=categories))
    return {u.item_id: round(u.seconds, 3) for u in answer.usual}


async def test_what_an_item_usually_takes_is_what_nine_in_ten_stayed_below_on_any_machine(stub: Stub) -> None:
    for n in range(1, 11):
        time = pb.ItemTime(item_id="rule-1", category="ssh", seconds=float(n))
        await stub.Record(record(f"k{n}", run=f"run-{n}", fingerprint=f"machine {n}", times=[time]))
    assert await usual(stub, "rule-1") == {"rule-1": 9.1}
    assert await usual(stub, "rule-2") == {}


async def test_an_item_that_is_not_known_takes_what_others_of_its_category_took(stub: Stub) -> None:
    times = [pb.ItemTime(item_id=f"rule-{n}", category="ssh", seconds=10.0) for n in range(3)]
    times.append(pb.ItemTime(item_id="rule-9", category="audit", seconds=50.0))
    await stub.Record(record("k", times=times))
    asked = ("rule-1", "rule-7", "rule-8", "rule-9")
    # One time of a category says nothing of another item in it.
    assert await usual(stub, *asked, categories=("ssh", "ssh", "audit", "audit")) == {
        "rule-1": 10.0,
        "rule-7": 10.0,
        "rule-9": 50.0,
    }


async def test_lessons_and_times_are_part_of_what_a_key_stands_for(stub: Stub) -> None:
    await stub.Record(record("k", lessons=[LESSON]))
    await stub.Record(record("k", lessons=[LESSON]))
    with pytest.raises(AlreadyExists):
        await stub.Record(record("k", times=[pb.ItemTime(item_id="rule-1", seconds=1.0)]))


@pytest.mark.parametrize(
    ("taught", "field"),
    [
        ({"lessons": [pb.Lesson(item_id="rule-1", certainty="low")]}, "lessons[0].lesson"),
        ({"lessons": [pb.Lesson(item_id="rule-1", lesson="x", certainty="sure")]}, "lessons[0].certainty"),
        ({"lessons": [pb.Lesson(item_id="", lesson="x", certainty="low")]}, "lessons[0].item_id"),
        ({"times": [pb.ItemTime(item_id="rule-1", seconds=0.0)]}, "times[0].seconds"),
        ({"times": [pb.ItemTime(item_id="rule-1", seconds=1e9)]}, "times[0].seconds"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_written(stub: Stub, taught: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await stub.Record(record("k", **taught))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert await lessons(stub, "rule-1") == []


async def test_categories_fit_the_items_or_are_left_out(stub: Stub) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await stub.Recall(recall("rule-1", "rule-2", categories=("ssh",)))
    assert caught.value.field == "categories"
