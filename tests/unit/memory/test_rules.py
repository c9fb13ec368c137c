from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from anneal_contracts.canonical import digest
from anneal_memory.model import Change, Kind, Memory, Outcome, Scope
from anneal_memory.rules import RecallLimits, credit, first_seen, memory_id, ranked, seen_again, select, share, utility
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SCOPE = Scope(skill="stig", fingerprint="el9")
LIMITS = RecallLimits(half_life_days=90, tip_ttl_days=365, ban_ttl_days=90, bans_per_item=2)
DAY_S = 86_400.0


def outcome(script: str = "true", *, item: str = "rule-1", worked: bool = True, tip_id: str = "") -> Outcome:
    return Outcome(
        item_id=item,
        action_hash=digest("bash", script),
        action_kind="bash",
        action_title="title",
        content=script,
        origin="vendor",
        worked=worked,
        mechanism="because",
        tip_id=tip_id,
    )


def tip(
    script: str = "true", *, item: str = "rule-1", age_days: float = 0, uses: int = 1, successes: int = 1
) -> Memory:
    made = first_seen(SCOPE, outcome(script, item=item), "run-1", NOW - timedelta(days=age_days)).memory
    return replace(made, uses=uses, successes=successes)


def ban(script: str = "false", *, item: str = "rule-1", age_days: float = 0) -> Memory:
    at = NOW - timedelta(days=age_days)
    return first_seen(SCOPE, outcome(script, item=item, worked=False), "run-1", at).memory


def test_utility_is_the_smoothed_share_halved_each_half_life() -> None:
    assert share(0, 0) == 0.5
    assert share(1, 1) == pytest.approx(2 / 3)
    assert share(9, 9) == pytest.approx(10 / 11)
    assert share(4, 0) == pytest.approx(1 / 6)
    assert utility(1, 1, 0, 90) == share(1, 1)
    assert utility(1, 1, 90 * DAY_S, 90) == pytest.approx(1 / 3)
    assert utility(1, 1, 180 * DAY_S, 90) == pytest.approx(1 / 6)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(-1e9, 1e12), st.floats(0.1, 3650), st.floats(0, 1e9))
def test_utility_stays_between_0_and_1_and_only_falls_with_age(
    good: int, bad: int, age_s: float, half_life: float, more_s: float
) -> None:
    now, later = (utility(good + bad, good, a, half_life) for a in (age_s, age_s + more_s))
    assert 0 <= later <= now < 1
    assert utility(good + bad + 1, good + 1, age_s, half_life) >= now >= utility(good + bad + 1, good, age_s, half_life)


def test_what_worked_is_a_tip_and_what_failed_cleanly_a_ban() -> None:
    assert first_seen(SCOPE, outcome(), "run-1", NOW).memory.kind is Kind.TIP
    failed = first_seen(SCOPE, outcome(worked=False), "run-1", NOW)
    assert (failed.memory.kind, failed.memory.uses, failed.memory.successes) == (Kind.BAN, 1, 0)
    assert failed.change is Change.LEARNT


def test_the_same_script_is_one_memory_in_every_installation() -> None:
    assert memory_id(SCOPE, "rule-1", "h") == memory_id(SCOPE, "rule-1", "h")
    others = [
        memory_id(SCOPE, "rule-2", "h"),
        memory_id(SCOPE, "rule-1", "i"),
        memory_id(replace(SCOPE, fingerprint="el8"), "rule-1", "h"),
        memory_id(replace(SCOPE, skill="cve"), "rule-1", "h"),
    ]
    assert len({memory_id(SCOPE, "rule-1", "h"), *others}) == 5
    # Stored ids must mean the same for every later version.
    assert memory_id(SCOPE, "rule-1", "h") == "a6e94cf461fe2b024f57f8c228d6a784"


def test_followed_advice_is_credited_and_debited() -> None:
    worked = credit(tip(), True, "run-2", NOW, ban_below=0.3)
    assert (worked.memory.uses, worked.memory.successes, worked.change) == (2, 2, Change.CREDITED)
    failed = credit(tip(age_days=5), False, "run-2", NOW, ban_below=0.3)
    assert (failed.memory.uses, failed.memory.successes, failed.change) == (2, 1, Change.DEBITED)
    assert failed.memory.kind is Kind.TIP
    # A failure is no sign of life.
    assert failed.memory.seen_at == NOW - timedelta(days=5)


def test_a_tip_that_keeps_failing_becomes_a_ban_and_a_success_lifts_it() -> None:
    memory = tip()
    changes: list[Change] = []
    for _ in range(4):
        learnt = credit(memory, False, "run-2", NOW, ban_below=0.3)
        memory, changes = learnt.memory, [*changes, learnt.change]
    assert changes == [Change.DEBITED] * 3 + [Change.BANNED]
    assert memory.kind is Kind.BAN
    lifted = credit(memory, True, "run-3", NOW, ban_below=0.3)
    assert (lifted.memory.kind, lifted.change) == (Kind.TIP, Change.LIFTED)


def test_without_its_advice_being_followed_a_tip_gets_no_credit_and_no_debit() -> None:
    old = tip(age_days=50)
    again = seen_again(old, outcome(), "run-2", NOW)
    assert again is not None
    assert (again.memory.uses, again.memory.successes, again.change) == (1, 1, Change.CONFIRMED)
    assert again.memory.seen_at == NOW
    assert seen_again(old, outcome(worked=False), "run-2", NOW) is None


def test_a_success_lifts_a_ban_and_brings_its_script() -> None:
    bare = replace(ban("fix", age_days=3), content="")
    lifted = seen_again(bare, outcome("fix"), "run-2", NOW)
    assert lifted is not None
    assert (lifted.memory.kind, lifted.memory.content, lifted.change) == (Kind.TIP, "fix", Change.LIFTED)
    repeated = seen_again(bare, outcome("fix", worked=False), "run-2", NOW)
    assert repeated is not None
    assert (repeated.memory.kind, repeated.memory.uses, repeated.change) == (Kind.BAN, 2, Change.REPEATED)


def test_a_recall_gives_one_tip_and_the_newest_bans_of_each_item_in_order() -> None:
    memories = [
        tip("good", uses=5, successes=5),
        tip("lucky"),
        *(ban(f"bad {n}", age_days=n) for n in range(4)),
        tip("other", item="rule-2"),
        tip("nobody asked", item="rule-3"),
    ]
    chosen = select(memories, ["rule-2", "rule-1", "rule-2", "rule-9"], NOW, LIMITS)
    assert [(r.memory.item_id, r.memory.content) for r in chosen] == [
        ("rule-2", "other"),
        ("rule-1", "good"),
        ("rule-1", "bad 0"),
        ("rule-1", "bad 1"),
    ]


def test_age_decides_between_equal_tips_and_ends_them_all() -> None:
    fresh, old = tip("fresh", age_days=1), tip("old", age_days=200)
    assert [r.memory.content for r in ranked([old, fresh], NOW, LIMITS)] == ["fresh", "old"]
    assert ranked([tip(age_days=366), ban(age_days=91)], NOW, LIMITS) == []
    assert len(ranked([tip(age_days=364), ban(age_days=89)], NOW, LIMITS)) == 2


def test_what_a_person_has_forgotten_is_not_recalled() -> None:
    assert ranked([replace(tip(), forgotten=True)], NOW, LIMITS) == []


@given(st.permutations([tip(f"s{n}", uses=3, successes=n % 3) for n in range(6)]))
def test_the_order_of_storage_never_shows(memories: list[Memory]) -> None:
    order = [r.memory.id for r in ranked(memories, NOW, LIMITS)]
    assert order == [r.memory.id for r in ranked(sorted(memories, key=lambda m: m.id), NOW, LIMITS)]
