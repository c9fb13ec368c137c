"""What a run teaches memory beside its scripts, and how its story of an item goes onto the wire."""

from anneal_contracts.facts import FixSource, Outcome
from anneal_contracts.turns import Decided
from anneal_core import events as ev
from anneal_supervisor.learnt import lessons, times
from anneal_supervisor.story import story

from tests.unit.core.test_turns import OTHER, ROLES, Mind, asks, failing, run, said, script
from tests.unit.core.world import World, candidate, item


def test_only_items_that_a_change_completed_tell_how_long_they_took() -> None:
    w = World(items=[item("a", category="ssh"), item("b")], verdicts={("b", 1): Outcome.FAIL})
    w.create()
    (told,) = times(w.run())
    assert (told.item_id, told.category) == ("a", "ssh")
    attempt = w.state.items["a"].attempts[0]
    assert told.seconds == round(attempt.ended_at - w.state.items["a"].started_at, 3) > 0


def test_a_member_of_a_group_took_what_its_parts_took_and_not_what_it_waited() -> None:
    recalled = {i: [candidate(i, 0, source=FixSource.RECALLED)] for i in "abcd"}
    w = World(items=[item(i) for i in "abcd"], ladders=recalled)
    w.create(limits=ev.Limits(max_group=16))
    state = w.run()
    first = state.items["a"].attempts[0]
    told = {t.item_id: t.seconds for t in times(state)}
    assert first.group == 1 and told["a"] == round(sum(first.parts.values()), 3)
    assert told["a"] < first.ended_at - state.items["a"].started_at


def test_every_lesson_is_told_with_its_bans() -> None:
    w = failing(said(script(5)), said(script(6)))
    state = run(w)
    assert [(x.item_id, x.lesson, x.certainty) for x in lessons(state)] == [
        ("a", "lesson 1", "low"),
        ("a", "lesson 2", "low"),
    ]


def test_the_story_has_all_that_the_roles_said_and_what_decided_the_end() -> None:
    gone = Decided(command_id="", decision="escalate", reason="it is enough", missing_input="a word")
    plan = Decided(command_id="", decision="plan", strategy=OTHER, model="m")
    turns = [said(probes=asks("/x")), said(script(5)), said(script(6), similarity=0.95)]
    w = failing(*turns, decides=(plan, gone))
    state = run(w, roles=ROLES, max_attempts=5)
    told = story(state, state.items["a"])
    assert [(d.decision, d.after_attempts) for d in told.decisions] == [("plan", 0), ("escalate", 2)]
    assert told.decisions[0].approach == OTHER.approach
    assert "plateau" in told.decisions[1].why
    assert [(p.question, p.state, p.blob, p.after_attempts) for p in told.probes] == [
        ("read_file(path=/x)", "answered", "blob-1", 0)
    ]
    assert [(t.script_title, t.similarity) for t in told.turns] == [("fix 5 of a", 0.0), ("fix 6 of a", 0.95)]
    assert [x.attempt for x in told.lessons] == [1, 2]
    assert (told.decided_by, told.missing_input) == ("architect", "a word")
    assert (told.steps, told.tokens) == (state.items["a"].steps, state.items["a"].tokens)


def test_a_role_that_had_no_answer_is_told_with_the_problem() -> None:
    mind = Mind(says=[said(script(5))], decides=[Decided(command_id="", mode="contract_violation", detail="no plan")])
    w = failing(said(script(5)))
    w.override = mind
    state = run(w)
    told = story(state, state.items["a"])
    assert (told.decisions[0].decision, told.decisions[0].problem) == ("", "contract_violation: no plan")
