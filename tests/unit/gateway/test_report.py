"""The run's document and page."""

import re
from html.parser import HTMLParser

import pytest
from anneal.common.v1.common_pb2 import ScoreCounts
from anneal.evaluator.v1.evaluator_pb2 import Baseline
from anneal.supervisor.v1.story_pb2 import ItemStory
from anneal.supervisor.v1.supervisor_pb2 import Action, Attempt, Item, Run, RunSpec, VerifyRunResponse
from anneal_contracts.canonical import canonical_json
from anneal_gateway.report.document import Document, run_document
from anneal_gateway.report.html import Extras, plain, render_html
from anneal_gateway.report.words import ending, seconds

from tests.support.sample_run import BLOBS, sample_run

SCRIPTS = {sha: text.decode() for sha, text in BLOBS.items()}


class _Page(HTMLParser):
    """Collects what a check needs: ids, links, tags, and that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [str(given["id"])] if given.get("id") else []
        self.links += [str(given[name]) for name in ("href", "src") if given.get(name)]
        if tag not in ("meta", "link", "br", "hr", "img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def _hostile_run() -> Run:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m"
    action = Action(source="model", kind="bash", title=evil, blob="ab", mutability="reversible", allowed=True)
    attempt = Attempt(
        number=1, action=action, ending="reverted", failure_mode="clean_failure", evidence=evil, output=evil
    )
    detail = {"description": evil, "references": {evil: [evil]}}
    item = Item(
        id="rule_1", title=evil, category=evil, severity="high", state="escalated", reason=evil, model_words=evil,
        attempts=[attempt], attempts_made=1, detail_json=canonical_json(detail),
        story=ItemStory(missing_input=evil, decided_by=evil),
    )  # fmt: skip
    return Run(
        run_id=evil, spec=RunSpec(skill=evil, target=evil), state="finished", reason=evil, items=[item], notes=[evil]
    )


@pytest.mark.parametrize("done", [0.0, 0.4, 1.0])
def test_a_page_is_well_formed_and_every_cell_leads_to_its_story(done: float) -> None:
    page = _Page(render_html(run_document(sample_run(done=done)), Extras(scripts=SCRIPTS)))
    assert len(page.ids) == len(set(page.ids))
    fragments = [link[1:] for link in page.links if link.startswith("#")]
    assert len(fragments) >= 250
    assert set(fragments) <= set(page.ids)


def test_a_page_fetches_nothing_and_runs_nothing() -> None:
    page = _Page(render_html(run_document(sample_run()), Extras(scripts=SCRIPTS)))
    assert [link for link in page.links if not link.startswith("#")] == []
    assert not {"script", "iframe", "object", "link", "img", "form"} & set(page.tags)


def test_nothing_from_a_target_or_a_model_becomes_markup() -> None:
    text = render_html(run_document(_hostile_run()), Extras(scripts={"ab": "<b>$(x)</b>"}))
    page = _Page(text)
    assert not {"script", "img", "b>"} & set(page.tags)
    assert "alert(1)" in text
    assert "&lt;b&gt;$(x)&lt;/b&gt;" in text
    # What turns the reading direction or drives a terminal is made visible.
    assert "\u202e" not in text
    assert "[RIGHT-TO-LEFT OVERRIDE]" in text
    assert "\x1b" not in text


def test_regressions_come_before_the_score_and_differences_are_listed() -> None:
    text = render_html(run_document(sample_run()), Extras(scripts=SCRIPTS))
    assert text.index("sshd_set_keepalive") < text.index('aria-label="Score"')
    assert "the loop saw pass, the re-scan says fail" in text


def test_what_became_applicable_is_told_before_the_score_and_is_no_regression() -> None:
    run = sample_run()
    text = render_html(run_document(run), Extras(scripts=SCRIPTS))
    notice = text[text.index('id="became-applicable"') : text.index('aria-label="Score"')]
    assert "2 rules did not apply before this run and do now: 1 pass, 1 fail" in notice
    assert "configure_bashrc_tmux" in notice and "not among what this run was asked to mend" in notice
    assert "kernel_rule_01" not in notice
    assert run_document(run)["became_applicable"] == {"configure_bashrc_tmux": "fail", "kernel_rule_01": "pass"}
    run.became_applicable["kernel_rule_01"] = "fail"
    assert 'href="#item-kernel_rule_01"' in render_html(run_document(run), Extras()).partition('aria-label="Score"')[0]
    run.became_applicable.clear()
    assert "became-applicable" not in render_html(run_document(run), Extras())


def test_a_run_without_regressions_says_so_and_one_without_a_scan_claims_nothing() -> None:
    run = sample_run()
    del run.regressions[:]
    assert "No regressions." in render_html(run_document(run), Extras())
    early = Run(run_id="r", spec=RunSpec(skill="s", target="t"), state="discovering")
    text = render_html(run_document(early), Extras())
    assert "No regressions." not in text
    assert "there is no score" in text


def test_what_a_person_has_to_supply_is_told_on_the_page_and_in_the_document() -> None:
    run = sample_run()
    item = next(i for i in run.items if i.state == "escalated")
    item.story.CopyFrom(ItemStory(missing_input="the site's log host", decided_by="architect"))
    document = run_document(run)
    assert "What a person has to supply.</b> the site&#39;s log host" in render_html(document, Extras(scripts=SCRIPTS))
    told = next(i for i in document["items"] if i["id"] == item.id)
    assert (told["missing_input"], told["decided_by"]) == ("the site's log host", "architect")


def test_a_models_words_are_marked_as_such_and_states_are_told_without_colour() -> None:
    text = render_html(run_document(sample_run()), Extras(scripts=SCRIPTS))
    assert text.count("In a model's words") == sum(bool(i.model_words) for i in sample_run().items)
    assert re.search(r'aria-label="[a-z_0-9]+: escalated">!</a>', text)


def test_a_broken_chain_is_said_and_a_script_that_is_gone_too() -> None:
    verified = VerifyRunResponse(ok=False, events=9, first_bad_seq=4, reason="event 4 was changed")
    text = render_html(run_document(sample_run()), Extras(verified=verified, baseline=Baseline(reachable_after=False)))
    assert "broken at event 4" in text
    assert "This script is no longer stored." in text
    assert "the machine no longer answered" in text


def _document() -> Document:
    return run_document(sample_run())


def test_the_document_counts_by_state_and_by_rung() -> None:
    document = _document()
    assert sum(document["states"].values()) == len(document["items"]) == 250
    rungs = {row["rung"]: row for row in document["by_rung"]}
    assert sum(row["fixed"] for row in rungs.values()) == document["states"]["completed"]
    assert rungs["vendor"]["attempts"] > rungs["vendor"]["fixed"] > 0
    assert list(rungs) == ["vendor", "curated", "recalled", "model"]


def test_a_scan_that_has_not_happened_is_null_and_one_that_found_nothing_is_zero() -> None:
    run = Run(run_id="r", spec=RunSpec(skill="s"))
    assert run_document(run)["score"] == {"before": None, "after": None, "baseline": None, "fixed": 0, "regressed": 0}
    run.score.before.CopyFrom(ScoreCounts())
    assert run_document(run)["score"]["before"] == {"pass": 0, "fail": 0, "error": 0, "notapplicable": 0, "other": 0}


def test_the_document_says_what_memory_saved() -> None:
    run = sample_run()
    run.banned_skips = 7
    memory = run_document(run)["memory"]
    assert memory["known_failures_skipped"] == 7
    assert memory["steps_saved"] == 14
    assert memory["fixed_by_recalled"] == sum(i.rung == "recalled" for i in run.items)


def test_an_item_with_a_broken_detail_still_has_a_place_in_the_report() -> None:
    run = Run(run_id="r", items=[Item(id="x", state="queued", detail_json=b"{nonsense")])
    (item,) = run_document(run)["items"]
    assert (item["category"], item["severity"], item["references"]) == ("other", "unknown", {})


def test_a_dry_run_shows_what_it_would_try() -> None:
    run = sample_run(done=0.0)
    run.spec.dry_run = True
    text = render_html(run_document(run), Extras(scripts=SCRIPTS))
    assert "Would try 1" in text
    assert "PermitRootLogin no" in text


def test_a_fix_that_was_held_back_is_told_with_its_reason_and_its_script() -> None:
    run = sample_run()
    run.items[0].plan.append(Action(hash="zz", source="model", title="bad fix", policy="destroys data", blob="bb"))
    document = run_document(run)
    text = render_html(document, Extras(scripts={"bb": "rm -rf --no-preserve-root /"}))
    assert text.count("Held back</span>") == 1
    assert "destroys data" in text
    assert "rm -rf --no-preserve-root /" in text
    assert {row["rung"]: row["held_back"] for row in document["by_rung"]}["model"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ending": "kept", "generation": 4}, "Saved as generation 4"),
        ({"ending": "kept", "failure_mode": "false_negative"}, "Kept although"),
        ({"ending": "reverted", "failure_mode": "health_failure"}, "Undone: the machine got worse"),
        ({"ending": "unchanged", "failure_mode": "rpm_conflict"}, "rpm conflict"),
        ({"ending": "refused", "policy": "edits the scanner"}, "Never ran: edits the scanner"),
        ({"ending": ""}, "Under way"),
    ],
)
def test_endings_are_told_in_words(changes: dict[str, object], words: str) -> None:
    attempt = {"ending": "", "failure_mode": "", "policy": "", "generation": 0, **changes}
    assert words in ending(attempt)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0 ms"), (0.05, "50 ms"), (0.34, "0.3 s"), (151, "2 min 31 s"), (1800, "30 min"), (7500, "2 h 05 min")],
)
def test_durations_are_said_as_people_say_them(value: float, words: str) -> None:
    assert seconds(value) == words


def test_plain_keeps_lines_and_shows_what_is_hidden() -> None:
    assert plain("a\r\nb\tc\x07") == "a\nb\tc\ufffd"


def test_a_kept_group_saves_steps_and_one_taken_back_costs_them() -> None:
    def attempt(group: int, ending: str) -> Attempt:
        return Attempt(number=1, ending=ending, group=group)

    kept = [Item(id=f"k{n}", attempts=[attempt(1, "kept")]) for n in range(5)]
    lost = [Item(id=f"l{n}", attempts=[attempt(2, "reverted"), attempt(0, "kept")]) for n in range(3)]
    memory = run_document(Run(run_id="r", items=[*kept, *lost]))["memory"]
    assert memory["groups"] == 2
    assert memory["steps_saved"] == (5 - 1) - (3 + 1)


def test_what_a_gate_found_is_told_with_its_confidence_and_what_followed() -> None:
    run = sample_run()
    run.goal, run.goal_reasons[:] = "complex", ["250 items in 3 waves"]
    run.diagnoses.add(item_id="a", cause="undone by b", suspects=["b"], confidence=0.9, action="reopen")
    document = run_document(run)
    assert document["goal"] == {"level": "complex", "reasons": ["250 items in 3 waves"]}
    assert document["diagnoses"][0]["suspects"] == ["b"]
    text = render_html(document, Extras(scripts=SCRIPTS))
    assert "<b>a</b>: undone by b; confidence 0.9, mended again" in text
