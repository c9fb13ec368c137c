"""A run as the gateway would describe it, of realistic size and variety: what the terminal views are tried on."""

import random
from collections.abc import Iterator

from anneal.common.v1.common_pb2 import ScoreCounts
from anneal.supervisor.v1.supervisor_pb2 import Action, Attempt, Exclusion, Item, Run, RunSpec, Score
from anneal_contracts.canonical import canonical_json, sha256_hex

CREATED_AT = 1_790_000_000
# Category -> how many rules of it fail on the sample machine.
CATEGORIES = {
    "audit": 68,
    "ssh": 24,
    "accounts": 31,
    "password-quality": 14,
    "packages": 29,
    "services": 16,
    "file-permissions": 22,
    "kernel": 27,
    "mounts": 12,
    "crypto": 7,
}
SCRIPT = """#!/bin/bash
set -euo pipefail
sed -i "/^PermitRootLogin/d" /etc/ssh/sshd_config
echo "PermitRootLogin no" >> /etc/ssh/sshd_config
systemctl reload ssh
"""
BLOBS: dict[str, bytes] = {sha256_hex(SCRIPT.encode()): SCRIPT.encode()}


def _action(source: str, item_id: str, *, allowed: bool = True, policy: str = "") -> Action:
    return Action(
        hash=sha256_hex(f"{source}{item_id}".encode()),
        source=source,
        kind="bash",
        title=f"{source} fix of {item_id}",
        mutability="reversible" if allowed else "forbidden",
        policy=policy,
        blob=next(iter(BLOBS)),
        allowed=allowed,
    )


def _attempt(number: int, action: Action, *, worked: bool) -> Attempt:
    attempt = Attempt(
        number=number,
        action=action,
        ending="kept" if worked else "reverted",
        failure_mode="" if worked else "evaluator_gap",
        outcome="pass" if worked else "fail",
        evidence=""
        if worked
        else "expected PermitRootLogin = no, found PermitRootLogin = yes in /etc/ssh/sshd_config.d/50-site.conf",
        exit_code=0,
        output="" if worked else "reloading ssh.service\n",
        generation=number if worked else 0,
        parts={"apply": 0.11, "evaluate": 0.09, "keep" if worked else "revert": 0.12, "overhead": 0.02},
    )
    attempt.took.FromMilliseconds(340)
    return attempt


def _rules() -> Iterator[tuple[str, str, int]]:
    for category, number in CATEGORIES.items():
        for n in range(number):
            yield category, f"{category.replace('-', '_')}_rule_{n:02d}", n


def _item(category: str, item_id: str, state: str, dice: random.Random) -> Item:
    detail = {
        "id": item_id,
        "title": f"Rule {item_id} holds",
        "category": category,
        "description": "The setting must have the value that the guide asks for.",
        "rationale": "Without it an intruder has an easier life.",
        "fix_text": "Set the value and reload the service.",
        "references": {"cce": [f"CCE-8{dice.randrange(1000, 9999)}-1"], "stigid": ["RHEL-09-255045"]},
    }
    item = Item(
        id=item_id,
        title=str(detail["title"]),
        category=category,
        severity=dice.choices(["high", "medium", "low"], [1, 8, 2])[0],
        state=state,
        detail_json=canonical_json(detail),
        plan=[_action("vendor", item_id), _action("curated", item_id)],
    )
    _tell(item, dice)
    return item


def _tell(item: Item, dice: random.Random) -> None:
    """Fills in what happened to an item, by its state."""
    if item.state == "completed":
        tries = dice.choices([1, 2], [9, 1])[0]
        rungs = ["vendor", "curated"] if tries == 2 else [dice.choices(["vendor", "curated", "recalled"], [7, 2, 2])[0]]
        for n, rung in enumerate(rungs, start=1):
            item.attempts.append(_attempt(n, _action(rung, item.id), worked=n == len(rungs)))
        item.rung, item.final_outcome = rungs[-1], "pass"
    elif item.state == "escalated":
        item.attempts.append(_attempt(1, _action("vendor", item.id), worked=False))
        item.attempts.append(_attempt(2, _action("curated", item.id), worked=False))
        item.reason = "every rung was tried: vendor and curated left the check failing"
        item.model_words = "smollm2: The setting is overridden by a file that is read later."
        item.final_outcome = "fail"
    elif item.state == "active":
        item.attempts.append(Attempt(number=1, action=_action("vendor", item.id)))
    elif item.state == "deferred":
        item.reason, item.final_outcome = "needs a reboot", "fail"
    elif item.state == "skipped":
        item.reason = "missing_input: it wants a file system of its own"
    item.attempts_made = len(item.attempts)


def sample_run(*, done: float = 1.0, state: str = "", seed: int = 7) -> Run:
    """A run of 250 items of which the share `done` is through; the same arguments give the same run."""
    dice = random.Random(seed)
    rules = list(_rules())
    through = int(len(rules) * done)
    run = Run(
        run_id="01jd7q5x8m3k9v2h4t6w1zbnfc",
        spec=RunSpec(
            skill="stig-rhel9",
            target="lab",
            profile="stig",
            max_attempts=3,
            exclusions=[Exclusion(item_id="audit_rule_03", reason="the site logs elsewhere")],
        ),
        state=state or ("finished" if done >= 1 else "executing"),
        steps=through * 2,
        tokens=1840,
        seconds=through * 0.6,
        last_seq=through * 4,
        fingerprint="el9-9f2c",
        notes=["driver nspawn: snapshots by overlay"],
    )
    run.created_at.FromSeconds(CREATED_AT)
    for n, (category, item_id, _) in enumerate(rules):
        word = (
            "queued"
            if n > through
            else "active"
            if n == through
            else dice.choices(["completed", "escalated", "deferred", "skipped"], [84, 9, 3, 4])[0]
        )
        run.items.append(_item(category, item_id, word, dice))
    _score(run, ended=done >= 1)
    return run


def _score(run: Run, *, ended: bool) -> None:
    run.score.before.CopyFrom(ScoreCounts(**{"pass": 201, "fail": 250, "error": 2, "notapplicable": 44}))
    if not ended:
        return
    run.ended_at.FromSeconds(CREATED_AT + 151)
    fixed = sum(1 for item in run.items if item.final_outcome == "pass")
    after = ScoreCounts(**{"pass": 201 + fixed - 1, "fail": 251 - fixed, "error": 2, "notapplicable": 44})
    baseline = ScoreCounts(**{"pass": 279, "fail": 117, "error": 57, "notapplicable": 44})
    run.score.CopyFrom(Score(before=run.score.before, after=after, baseline=baseline, fixed=fixed, regressed=1))
    run.regressions.append("sshd_set_keepalive")
    run.became_applicable.update({"kernel_rule_01": "pass", "configure_bashrc_tmux": "fail"})
    run.differences.append("kernel_rule_02: the loop saw pass, the re-scan says fail")
