"""Every command against a gateway: answers for people, JSON for programs, errors with an exit code and a next step."""

import gzip
import json
import os
import threading
from pathlib import Path

import pytest
from anneal.checkpoint.v1.checkpoint_pb2 import Target
from anneal.common.v1.common_pb2 import Event
from anneal.evaluator.v1.evaluator_pb2 import Check, Skill
from anneal.supervisor.v1.supervisor_pb2 import VerifyRunResponse
from anneal_cli.dev.state import DevState, start_time, write_state
from anneal_cli.exits import ExitCode
from anneal_cli.home import Home
from anneal_contracts.canonical import canonical_json
from anneal_core import chain
from anneal_runtime import errors
from anneal_runtime.children import free_port

from tests.integration.cli.conftest import Anneal
from tests.support.fake_gateway import FakeGateway
from tests.support.sample_run import CREATED_AT, sample_run

RUN = sample_run().run_id


def test_runs_are_listed_newest_first(anneal: Anneal, gateway: FakeGateway) -> None:
    older = sample_run()
    older.run_id, older.created_at.seconds = "01aaaaaaaaaaaaaaaaaaaaaaaa", CREATED_AT - 60
    gateway.put(older)
    answer = anneal("runs")
    assert answer.out.index(RUN[:12]) < answer.out.index("01aaaaaaaaaa")
    assert [run["run_id"] for run in json.loads(anneal("runs", "--json").out)] == [RUN, older.run_id]


@pytest.mark.parametrize("given", [RUN, RUN[:6], "last"])
def test_a_run_may_be_named_by_id_beginning_or_last(anneal: Anneal, given: str) -> None:
    answer = anneal("show", given)
    assert (answer.code, answer.err) == (0, "")
    assert f"run {RUN}" in answer.out


def test_an_unknown_or_unclear_run_is_a_clear_error(anneal: Anneal, gateway: FakeGateway) -> None:
    other = sample_run()
    other.run_id = RUN[:-1] + "x"
    gateway.put(other)
    assert anneal("show", "zzz").code == ExitCode.NOT_FOUND
    unclear = anneal("show", RUN[:5])
    assert unclear.code == ExitCode.USAGE
    assert RUN in unclear.err
    assert anneal("show", RUN).code == 0


def test_last_without_any_run_says_how_to_start_one(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.runs.clear()
    answer = anneal("watch", "last")
    assert answer.code == ExitCode.NOT_FOUND
    assert "anneal run" in answer.err


def test_show_json_is_the_report_document(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.reports["json"] = (b'{"score": {"fixed": 3}}', "application/json")
    assert json.loads(anneal("show", "last", "--json").out) == {"score": {"fixed": 3}}


def test_explain_fetches_the_scripts(anneal: Anneal) -> None:
    item = next(item for item in sample_run().items if item.state == "escalated")
    answer = anneal("explain", "last", item.id)
    assert "systemctl reload ssh" in answer.out
    data = json.loads(anneal("explain", "last", item.id, "--json").out)
    assert data["item"]["id"] == item.id
    assert anneal("explain", "last", "nothing_like_it").code == ExitCode.NOT_FOUND


def test_a_report_is_put_together_from_its_pieces(anneal: Anneal, gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.reports["html"] = (b"<p>" * 1000, "text/html")
    answer = anneal("report", "last", "-o", str(tmp_path / "r.html"), "--json")
    assert (tmp_path / "r.html").read_bytes() == b"<p>" * 1000
    assert json.loads(answer.out)["bytes"] == 3000


ARF = b"<?xml version='1.0'?><arf/>" * 5000


@pytest.mark.parametrize(("name", "packed"), [("r.arf.xml", False), ("r.arf.xml.gz", True), ("r.jsonl.gz", True)])
@pytest.mark.parametrize("came_packed", [True, False])
def test_a_report_is_packed_exactly_where_its_name_says_so(
    anneal: Anneal, gateway: FakeGateway, tmp_path: Path, name: str, packed: bool, came_packed: bool
) -> None:
    report = (gzip.compress(ARF), "application/gzip") if came_packed else (ARF, "application/xml")
    gateway.reports.update(arf=report, jsonl=report)
    answer = anneal("report", "last", "-o", str(tmp_path / name), "--json")
    written = (tmp_path / name).read_bytes()
    assert (gzip.decompress(written) if packed else written) == ARF
    told = json.loads(answer.out)
    assert told["bytes"] == len(written)
    assert told["media_type"] == ("application/gzip" if packed else "application/xml")


def test_a_packed_report_goes_to_stdout_unpacked(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.reports["arf"] = (gzip.compress(b"<arf/>"), "application/gzip")
    answer = anneal("report", "last", "-o", "-", "--format", "arf")
    assert (answer.code, answer.out) == (ExitCode.OK, "<arf/>")


@pytest.mark.parametrize(
    ("broken", "why"), [(b"<arf/>", "incorrect header"), (gzip.compress(ARF)[:-40], "its end is missing")]
)
def test_a_report_that_cannot_be_unpacked_leaves_no_file(
    anneal: Anneal, gateway: FakeGateway, tmp_path: Path, broken: bytes, why: str
) -> None:
    gateway.reports["arf"] = (broken, "application/gzip")
    answer = anneal("report", "last", "-o", str(tmp_path / "r.arf.xml"))
    assert answer.code == ExitCode.NOT_HELD
    assert "cannot be unpacked" in answer.err and why in answer.err
    assert ".gz" in answer.err
    assert not list(tmp_path.glob("*.xml"))


def test_a_report_that_is_not_there_leaves_no_file(anneal: Anneal, tmp_path: Path) -> None:
    assert anneal("report", "last", "-o", str(tmp_path / "r.cklb")).code == ExitCode.NOT_FOUND
    assert not (tmp_path / "r.cklb").exists()


def test_cancel_hands_on_the_reason(anneal: Anneal, gateway: FakeGateway) -> None:
    assert anneal("cancel", "last", "--reason", "maintenance").code == 0
    assert gateway.cancelled == [(RUN, "maintenance")]


def test_run_sends_the_whole_specification(anneal: Anneal, gateway: FakeGateway, tmp_path: Path) -> None:
    tailoring = tmp_path / "t.xml"
    tailoring.write_text("<Tailoring/>")
    options = ["--profile", "stig", "--item", "a", "--item", "b", "--time-budget", "1h30m", "--max-attempts", "2"]
    options += ["--max-steps", "99", "--exclude", "c=not here", "--tailoring", str(tailoring), "--no-memory"]
    answer = anneal("run", "stig-rhel9", "--target", "lab", *options, "--model-profile", "big", "--no-watch", "--json")
    assert json.loads(answer.out) == {"run_id": RUN}
    spec = gateway.created[0]
    assert (spec.skill, spec.target, spec.profile, list(spec.item_ids)) == ("stig-rhel9", "lab", "stig", ["a", "b"])
    assert (spec.time_budget.seconds, spec.max_attempts, spec.max_steps) == (5400, 2, 99)
    assert [(e.item_id, e.reason) for e in spec.exclusions] == [("c", "not here")]
    assert (spec.tailoring, spec.no_memory, spec.dry_run, spec.model_profile) == (b"<Tailoring/>", True, False, "big")


def test_run_and_watch_ends_with_the_summary_and_the_run_s_own_end(anneal: Anneal, gateway: FakeGateway) -> None:
    answer = anneal("run", "stig-rhel9", "--target", "lab", "--watch")
    assert answer.code == 0
    assert "full scan" in answer.out
    gateway.put(sample_run(state="failed"))
    assert anneal("run", "stig-rhel9", "--target", "lab", "--watch").code == ExitCode.NOT_HELD


def test_a_dry_run_is_watched_and_shows_its_plan(anneal: Anneal, gateway: FakeGateway) -> None:
    run = sample_run(done=0.0, state="finished")
    run.spec.dry_run = True
    for item in run.items:
        item.ClearField("attempts")
    gateway.put(run)
    answer = anneal("run", "stig-rhel9", "--target", "lab", "--dry-run")
    assert answer.code == 0
    assert "[reversible]  policy: allowed" in answer.out
    assert "Dry run: touched nothing." in answer.out


def test_watch_without_a_terminal_prints_one_line_a_change(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.put(sample_run(done=0.5))

    def go_on() -> None:
        gateway.put(sample_run(done=0.6), Event(type="item_closed", payload_json=b"{}"))
        gateway.put(sample_run(), Event(type="run_ended", payload_json=b"{}"))

    timer = threading.Timer(0.6, go_on)
    timer.start()
    answer = anneal("watch", "last")
    timer.join()
    lines = answer.out.splitlines()
    closed = [line for line in lines if "/250]" in line]
    assert len(closed) == 250
    assert len({line.split("] ")[1].split()[1] for line in closed}) == 250
    assert any(line.endswith("executing") for line in lines)
    assert any(line.endswith("finished") for line in lines)
    assert "\x1b" not in answer.out


def test_watch_json_is_one_object_a_look(anneal: Anneal) -> None:
    looks = [json.loads(line) for line in anneal("watch", "last", "--json").out.splitlines()]
    assert looks[-1]["state"] == "finished"
    assert sum(looks[-1]["items"].values()) == 250


def test_audit_verify_says_what_the_store_found(anneal: Anneal, gateway: FakeGateway) -> None:
    assert anneal("audit", "verify", "last").code == 0
    gateway.verification = VerifyRunResponse(ok=False, events=9, first_bad_seq=4, reason="event 4 was changed")
    answer = anneal("audit", "verify", "last", "--json")
    assert answer.code == ExitCode.NOT_HELD
    assert json.loads(answer.out)["first_bad_seq"] == 4


def exported(path: Path, number: int = 5) -> Path:
    prev = chain.GENESIS
    with path.open("wb") as file:
        for seq in range(1, number + 1):
            event = chain.link(
                run_id="r", seq=seq, at=1.5 * seq, type="t", actor="a", payload={"n": seq, "s": "ä"}, prev_hash=prev
            )
            file.write(canonical_json(event) + b"\n")
            prev = event.hash
    return path


def test_an_exported_log_is_checked_offline(anneal: Anneal, gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.error = errors.Unavailable("nobody is asked")
    log = exported(tmp_path / "run.jsonl")
    answer = anneal("audit", "verify", "--file", str(log), "--json")
    assert (answer.code, json.loads(answer.out)["events"]) == (0, 5)


def test_any_flipped_byte_of_an_exported_log_is_found(anneal: Anneal, tmp_path: Path) -> None:
    log = exported(tmp_path / "run.jsonl", 3)
    whole = log.read_bytes()
    for at in range(0, len(whole), 37):
        if whole[at : at + 1] == b"\n":
            continue
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert anneal("audit", "verify", "--file", str(log)).code == ExitCode.NOT_HELD, at
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    assert anneal("audit", "verify", "--file", str(log)).code == ExitCode.NOT_HELD


def test_targets_are_added_listed_and_removed(anneal: Anneal, gateway: FakeGateway, tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("key")
    host_key = tmp_path / "host.pub"
    host_key.write_text(f"ssh-ed25519 {'A' * 68} web1\n")
    assert anneal("target", "add", "lab", "--lab", "lab", "--mission-service", "sshd").code == 0
    answer = anneal("target", "add", "web1", "--ssh", "ops@web1:2222", "--key", str(key), "--host-key", str(host_key))
    assert "only fixes with a script that takes them back" in answer.out
    added = gateway.targets["web1"]
    assert (added.host, added.port, added.user, added.key_path) == ("web1", 2222, "ops", str(key))
    assert added.host_key == f"ssh-ed25519 {'A' * 68}"
    assert gateway.targets["lab"] == Target(
        name="lab", driver="nspawn", machine="lab", can_snapshot=True, mission_services=["sshd"]
    )
    listed = anneal("target", "list").out
    assert "ops@web1:2222" in listed
    assert "lab machine lab" in listed
    assert anneal("target", "remove", "web1").code == 0
    gone = anneal("target", "remove", "web1")
    assert gone.code == ExitCode.NOT_FOUND
    assert "anneal target list" in gone.err


def test_a_lab_machine_that_is_not_there_is_refused_with_those_that_are(
    anneal: Anneal, gateway: FakeGateway, address: str, tmp_path: Path
) -> None:
    home = Home(root=tmp_path / "home")
    (home.root / "lab/machines/web").mkdir(parents=True)
    (home.root / "lab/machines/web/machine.json").touch()
    assert anneal("target", "add", "far", "--lab", "theirs").code == 0, "another anneal's lab is not ours to look into"
    started, port = start_time(os.getpid()) or 0.0, int(address.rpartition(":")[2])
    write_state(home, DevState(pid=os.getpid(), started=started, port_base=port, phase="ready", ports={}))
    refused = anneal("target", "add", "y", "--lab", "typo")
    assert refused.code == ExitCode.NOT_FOUND
    assert "no machine 'typo' (there: web)" in refused.err
    assert "anneal lab up typo" in refused.err
    for machine in ("web", "lab"):
        assert anneal("target", "add", machine, "--lab", machine).code == 0
    assert set(gateway.targets) == {"far", "web", "lab"}


def test_a_target_s_failed_check_names_what_mends_it(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.checks = [Check(name="login", ok=True, detail="as root"), Check(name="sudo", detail="no", mend="visudo")]
    answer = anneal("target", "test", "lab")
    assert answer.code == ExitCode.NOT_HELD
    assert "mend: visudo" in answer.out


def test_a_broken_skill_is_shown_with_its_reason(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.skills = [Skill(name="good", version="1", profiles=["a", "b"], default_profile="b")]
    assert "a b*" in anneal("skills").out
    gateway.skills.append(Skill(name="bad", error="skill.yaml: version is missing"))
    answer = anneal("skills")
    assert answer.code == ExitCode.NOT_HELD
    assert "BROKEN: skill.yaml: version is missing" in answer.out


def test_a_leased_target_is_a_conflict_with_a_next_step(anneal: Anneal, gateway: FakeGateway) -> None:
    gateway.error = errors.Leased("target lab is leased by run 01x", field="target")
    answer = anneal("run", "stig-rhel9", "--target", "lab")
    assert answer.code == ExitCode.CONFLICT
    assert answer.err.startswith("anneal: target lab is leased by run 01x [target]") or "01x" in answer.err
    assert "anneal cancel RUN" in answer.err


def test_a_wrong_token_says_where_the_token_comes_from(anneal: Anneal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNEAL_TOKEN", "another-token-altogether")
    answer = anneal("runs")
    assert answer.code == ExitCode.UNREACHABLE
    assert "ANNEAL_TOKEN" in answer.err


def test_no_anneal_at_all_says_how_to_start_it(anneal: Anneal) -> None:
    answer = anneal("runs", "--gateway", f"127.0.0.1:{free_port()}")
    assert answer.code == ExitCode.UNREACHABLE
    assert "nothing answers there" in answer.err
    assert "anneal dev" in answer.err


def test_doctor_checks_a_running_gateway(anneal: Anneal, address: str) -> None:
    answer = anneal("doctor", "--no-lab", "--gateway", address, "--json")
    checks = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    assert checks["model default"]["ok"]
    assert checks["python"]["ok"]
    assert all(check["mend"] for check in checks.values() if not check["ok"])
