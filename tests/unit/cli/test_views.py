"""What people read of a run: the bad news first, reasons with every item, model words marked as such."""

import io
import json

import pytest
from anneal.supervisor.v1.story_pb2 import DecisionTold, ItemStory, LessonTold, MemoryShown, ProbeTold, TurnTold
from anneal.supervisor.v1.supervisor_pb2 import Item, Run
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.views.dryrun import print_plan
from anneal_cli.views.explain import explain_data, find_item, print_story
from anneal_cli.views.show import print_run, print_runs, print_summary
from rich.console import Console

from tests.support.sample_run import BLOBS, sample_run


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def text_of(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def unwrapped(out: Console) -> str:
    """The text with each run of white space as one space."""
    return " ".join(text_of(out).split())


def test_show_tells_regressions_before_the_score_and_the_score_before_items() -> None:
    out = console()
    print_run(out, sample_run())
    text = text_of(out)
    order = [text.index(part) for part in ("fail now", "full scan", "250 items", "rung", "escalated\n", "next  ")]
    assert order == sorted(order)
    assert "sshd_set_keepalive" in text
    assert "vendor's tool alone" in text


def test_show_tells_what_became_applicable_and_names_what_of_it_fails() -> None:
    out = console()
    run = sample_run()
    print_run(out, run)
    before_score = text_of(out).partition("full scan")[0]
    assert "2 did not apply before and apply now: 1 pass, 1 fail:\n  configure_bashrc_tmux\n" in before_score
    story = console()
    print_story(story, run, find_item(run, "kernel_rule_01"), {})
    assert "did not apply before the run" in unwrapped(story)
    quiet = console()
    run.became_applicable.clear()
    print_run(quiet, run)
    print_story(quiet, run, find_item(run, "kernel_rule_01"), {})
    assert "apply" not in text_of(quiet)


def test_show_gives_every_item_that_was_not_completed_with_its_reason() -> None:
    out = console(120)
    run = sample_run()
    print_run(out, run)
    text = text_of(out)
    for item in run.items:
        if item.state in ("escalated", "deferred", "skipped"):
            assert item.id in text
    assert "every rung was tried" in text
    assert "needs a reboot" in text


def test_show_fits_80_columns() -> None:
    out = console(80)
    print_run(out, sample_run())
    assert max(len(line) for line in text_of(out).splitlines()) <= 80


def test_a_reason_with_brackets_is_shown_as_it_is() -> None:
    run = Run(run_id="r", state="failed", reason="[bold]no[/bold] such target")
    out = console()
    print_summary(out, run)
    assert "[bold]no[/bold] such target" in text_of(out)


def test_the_rung_table_counts_attempts_and_fixes() -> None:
    run = sample_run()
    out = console()
    print_summary(out, run)
    line = next(line for line in text_of(out).splitlines() if line.startswith("vendor "))
    attempts = sum(1 for item in run.items for attempt in item.attempts if attempt.action.source == "vendor")
    fixed = sum(1 for item in run.items if item.rung == "vendor")
    assert line.split()[1] == str(attempts)
    assert line.split()[-1] == str(fixed)


def test_the_list_of_runs_says_what_to_do_when_there_is_none() -> None:
    out = console()
    print_runs(out, [])
    assert "anneal run" in text_of(out)


def escalated(run: Run) -> Item:
    return next(item for item in run.items if item.state == "escalated")


def scripts() -> dict[str, str]:
    return {name: content.decode() for name, content in BLOBS.items()}


def test_explain_tells_script_evidence_verdict_and_why_it_went_on() -> None:
    run = sample_run()
    out = console(100)
    print_story(out, run, escalated(run), scripts())
    text = unwrapped(out)
    for part in (
        "Attempt 1: the fix shipped with the content",
        'echo "PermitRootLogin no" >> /etc/ssh/sshd_config',
        "Evidence: expected PermitRootLogin = no",
        "the check still fails",
        "It was reverted",
        "Attempt 2: a fix of the skill's own",
        "It was handed to a person: every rung was tried",
        "The final re-scan says fail.",
        "Why it matters",
        "CCE-",
    ):
        assert part in text, part


def with_roles(run: Run) -> Item:
    """An escalated item on which all roles had their say."""
    item = escalated(run)
    attempts = len(item.attempts)
    item.story.CopyFrom(
        ItemStory(
            memories=[MemoryShown(id="a1b2c3d4e5f6a7b8", kind="lesson", text="Look for drop-ins.", run_id="run-0")],
            decisions=[
                DecisionTold(decision="plan", reason="It is overridden.", approach="A drop-in.", steps=["Write it."]),
                DecisionTold(
                    decision="escalate",
                    why="2 tries failed since the last look",
                    reason="No script helps.",
                    missing_input="the site's banner",
                    after_attempts=attempts,
                ),
            ],
            probes=[
                ProbeTold(question="read_file(path=/etc/x)", state="answered", blob="f", redactions={"private key": 1}),
                ProbeTold(
                    question="read_file(path=/etc/shadow)", state="denied", detail="/etc/shadow may not be shown"
                ),
            ],
            turns=[TurnTold(mode="contract_violation", detail="script: does nothing")],
            lessons=[
                LessonTold(
                    attempt=attempts,
                    lesson="The file is not read.",
                    mechanism="Include comes first.",
                    bans=["Editing it."],
                    banned_text=["sed -i s/a/b/"],
                    certainty="high",
                    model="gemma",
                )
            ],
            decided_by="architect",
            missing_input="the site's banner",
            steps=17,
            tokens=4321,
            budget_s=600,
            usual_s=120,
        )
    )
    return item


def test_explain_tells_what_every_role_said_in_the_order_in_which_it_was_said() -> None:
    run = sample_run()
    out = console(160)
    print_story(out, run, with_roles(run), {**scripts(), "f": "Port 22\n" * 40})
    text = unwrapped(out)
    told = [
        "lesson (a1b2c3d4e5f6, from run-0): Look for drop-ins.",
        "The Architect made a plan: Why: It is overridden. Approach: A drop-in. 1. Write it.",
        "read_file(path=/etc/x) taken out: 1 private key Port 22",
        "... 28 more lines",
        "read_file(path=/etc/shadow) refused: /etc/shadow may not be shown",
        "Attempt 1",
        "Lesson (gemma, high certainty): The file is not read. Cause: Include comes first. Not again: Editing it.",
        "Not again: any script with: sed -i s/a/b/",
        "gave it to a person: Asked because: 2 tries failed since the last look Why: No script helps.",
        "contract_violation: script: does nothing",
        "What decided it: the Architect's word.",
        "What a person has to supply: the site's banner",
        "It took 17 steps and 4321 tokens, with 600 s to spend; such an item took 120 s before.",
    ]
    places = [text.find(part) for part in told]
    assert -1 not in places, told[places.index(-1)]
    assert places == sorted(places)


def test_explain_says_nothing_of_roles_that_had_no_part() -> None:
    run = sample_run()
    out = console(100)
    print_story(out, run, escalated(run), scripts())
    text = unwrapped(out)
    assert not [word for word in ("Architect", "Memory gave", "asked about", "Lesson", "tokens") if word in text]


def test_explain_marks_the_model_s_words() -> None:
    run = sample_run()
    out = console()
    print_story(out, run, escalated(run), scripts())
    text = text_of(out)
    assert text.index("In a model's words (no evidence") < text.index("smollm2:")


def test_explain_shows_the_script_as_it_is_and_not_as_markup() -> None:
    run = sample_run()
    item = escalated(run)
    blob = item.attempts[0].action.blob
    out = console(100)
    print_story(out, run, item, {blob: "[[ -f /etc/x ]] && echo '[red]'"})
    assert "[[ -f /etc/x ]] && echo '[red]'" in text_of(out)


def test_explain_for_programs_is_json_with_scripts_and_detail() -> None:
    run = sample_run()
    data = json.loads(json.dumps(explain_data(run, escalated(run), scripts())))
    assert data["detail"]["references"]["stigid"] == ["RHEL-09-255045"]
    assert data["item"]["attempts"][0]["action"]["blob"] in data["scripts"]


def test_an_item_is_found_by_a_unique_part_of_its_id() -> None:
    run = sample_run()
    assert find_item(run, "ssh_rule_07").id == "ssh_rule_07"
    assert find_item(run, "password_quality_rule_13").id == "password_quality_rule_13"
    assert find_item(run, "quality_rule_13").id == "password_quality_rule_13"


@pytest.mark.parametrize(
    ("given", "code"), [("no_such_rule", ExitCode.NOT_FOUND), ("ssh_rule", ExitCode.USAGE), ("", ExitCode.USAGE)]
)
def test_an_unknown_or_unclear_item_is_a_clear_error(given: str, code: ExitCode) -> None:
    with pytest.raises(CliError) as caught:
        find_item(sample_run(), given)
    assert caught.value.code is code
    assert caught.value.field == "RULE"
    assert caught.value.hint


async def test_a_dry_run_shows_class_source_policy_and_script_and_that_nothing_was_touched() -> None:
    run = sample_run(done=0.0, state="finished")
    run.spec.dry_run = True
    del run.items[3:]
    for item in run.items:
        item.ClearField("attempts")
    run.items[0].plan[1].allowed = False
    run.items[0].plan[1].mutability = "destructive"
    run.items[0].plan[1].policy = "removes a file system"
    run.items[2].ClearField("plan")

    async def blob(name: str) -> bytes:
        return BLOBS[name]

    out = console(100)
    await print_plan(out, run, blob)
    text = text_of(out)
    assert "1. vendor bash: vendor fix of audit_rule_00  [reversible]  policy: allowed" in text
    assert "[destructive]  policy: removes a file system" in text
    assert "systemctl reload ssh" in text
    assert "no script is known" in text
    assert "3 items, scripts: 2 vendor, 2 curated; 1 not allowed; 1 items without one" in text
    assert "Dry run: touched nothing." in text


async def test_a_dry_run_that_ran_something_does_not_say_that_it_touched_nothing() -> None:
    run = sample_run(state="finished")
    run.spec.dry_run = True

    async def blob(name: str) -> bytes:
        return BLOBS[name]

    out = console()
    await print_plan(out, run, blob)
    assert "touched nothing" not in text_of(out)
