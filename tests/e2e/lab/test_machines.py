"""Booting, stopping, cloning, and surviving what goes wrong."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from anneal_lab import Lab, LabError, container, network
from anneal_lab.layout import default_home
from anneal_lab.model import Access
from anneal_lab.proc import run
from anneal_lab.sshkeys import ssh_argv

from .conftest import Remote

BOOT_GOAL_S = 4.0
RESET_GOAL_S = 6.0
# Other work on the two cores is no fault of the lab: the goals are for a quiet machine, the tests allow this much more.
SLACK = 3.0
# For a child process that uses the lab.
_PRELUDE = f"import sys, time; sys.path[:0] = {sys.path!r}; from anneal_lab import Lab"


def test_a_new_machine_answers_ssh_within_the_goal_and_lets_the_user_sudo(
    lab: Lab, names: list[str], remote: Remote
) -> None:
    begin = time.monotonic()
    lab.up(names[0])
    assert time.monotonic() - begin < BOOT_GOAL_S * SLACK
    assert remote(names[0], "sudo -n id -u").strip() == "0"
    assert lab.status(names[0]).state == "running"


def test_the_host_key_that_the_lab_names_is_the_one_the_machine_shows(lab: Lab, machine: str, tmp_path: Path) -> None:
    access = lab.access(machine)
    wrong = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    forged = Access(host=access.host, port=22, user=access.user, key_path=access.key_path, host_key=wrong)
    with pytest.raises(LabError, match="Host key verification failed"):
        run(ssh_argv(forged, tmp_path / "known", ["true"]))
    run(ssh_argv(access, tmp_path / "known", ["true"]))


def test_up_and_down_can_be_repeated(lab: Lab, machine: str) -> None:
    assert lab.up(machine) == lab.up(machine)
    lab.down(machine)
    lab.down(machine)
    assert lab.status(machine).state == "stopped"
    assert not network.interface_exists(lab.machine_paths(machine).interface)


def test_a_stop_and_start_keeps_the_disk_and_a_reset_does_not(lab: Lab, machine: str, remote: Remote) -> None:
    remote(machine, "sudo sh -c 'echo kept > /etc/kept'")
    lab.down(machine)
    lab.up(machine)
    assert remote(machine, "cat /etc/kept").strip() == "kept"
    begin = time.monotonic()
    lab.reset(machine)
    assert time.monotonic() - begin < RESET_GOAL_S * SLACK
    assert remote(machine, "ls /etc/kept 2>&1 || true").strip().endswith("No such file or directory")


def test_a_clone_of_a_running_machine_has_its_state_and_an_address_of_its_own(
    lab: Lab, machine: str, names: list[str], remote: Remote
) -> None:
    remote(machine, "sudo sh -c 'echo one > /etc/marker'")
    access = lab.clone(machine, names[1])
    assert access.host != lab.access(machine).host
    assert remote(names[1], "cat /etc/marker").strip() == "one"
    remote(names[1], "sudo sh -c 'echo two > /etc/marker'")
    assert remote(machine, "cat /etc/marker").strip() == "one"


def test_machines_do_not_share_services_or_processes(lab: Lab, machine: str, names: list[str], remote: Remote) -> None:
    lab.clone("", names[1])
    remote(names[1], "sudo systemctl stop crond")
    assert remote(machine, "systemctl is-active crond").strip() == "active"
    lab.down(names[1])
    assert remote(machine, "systemctl is-active sshd").strip() == "active"


def test_a_machine_can_reboot_itself(machine: str, remote: Remote) -> None:
    """Nothing of ours helps: the machine comes back under the same address on its own."""
    started = "cut -d' ' -f22 /proc/1/stat"
    before = int(remote(machine, started))
    with pytest.raises(LabError):
        remote(machine, "sudo systemctl reboot; sleep 20")
    end = time.monotonic() + 20
    while True:
        try:
            assert int(remote(machine, started)) > before
            return
        except LabError:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("victim", ["keeper", "init"])
def test_up_recovers_a_machine_whose_processes_were_killed(lab: Lab, machine: str, remote: Remote, victim: str) -> None:
    paths = lab.machine_paths(machine)
    pid = container.keeper(paths) if victim == "keeper" else container.init_process(paths)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    lab.up(machine)
    assert remote(machine, "echo alive").strip() == "alive"


def test_a_frozen_machine_whose_holder_died_runs_again_after_up(lab: Lab, machine: str, remote: Remote) -> None:
    container.freeze(lab.machine_paths(machine))
    lab.up(machine)
    assert remote(machine, "echo alive").strip() == "alive"


def test_two_at_once_boot_one_machine(lab: Lab, names: list[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lab.up, [names[0], names[0]])
    assert first == second
    keepers = [pid for pid in container.processes(lab.machine_paths(names[0])) if _is_nspawn(pid)]
    assert len(keepers) == 1


def _is_nspawn(pid: int) -> bool:
    return b"systemd-nspawn" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


def test_several_machines_boot_at_the_same_time(lab: Lab, names: list[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        hosts = {access.host for access in pool.map(lab.up, names)}
    assert len(hosts) == len(names)


def test_ctrl_c_in_the_process_group_that_booted_a_machine_does_not_stop_it(lab: Lab, names: list[str]) -> None:
    code = f"{_PRELUDE}; Lab().up({names[0]!r}); print('up', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        os.killpg(child.pid, signal.SIGINT)
        child.wait(10)
    assert lab.status(names[0]).state == "running"


def test_a_killed_up_is_finished_by_the_next_one(lab: Lab, names: list[str]) -> None:
    code = f"{_PRELUDE}; Lab().up({names[0]!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        timer = threading.Timer(0.6, child.kill)
        timer.start()
        child.wait(30)
        timer.cancel()
    lab.up(names[0])
    assert lab.status(names[0]).state == "running"


def test_delete_leaves_nothing_behind(lab: Lab, names: list[str]) -> None:
    lab.up(names[0])
    paths = lab.machine_paths(names[0])
    lab.delete(names[0])
    assert lab.status(names[0]).state == "absent"
    assert not paths.folder.exists()
    assert container.processes(paths) == []
    assert paths.interface not in os.listdir("/sys/class/net")
    assert str(default_home()) not in Path("/proc/mounts").read_text()


def test_cloning_onto_an_existing_machine_is_refused(lab: Lab, machine: str, names: list[str]) -> None:
    with pytest.raises(LabError, match="exists already"):
        lab.clone("", machine)
    with pytest.raises(LabError, match="there is no machine"):
        lab.clone("nosuch", names[1])
    assert lab.status(names[1]).state == "absent"
