"""Generations: taken while the machine runs, put back byte for byte."""

import time

import pytest
from anneal_lab import Lab, LabError

from .conftest import Remote

NOISE = [
    "/etc/tuned*",
    "/var/log/*",
    "/var/lib/chrony/*",
    "/var/lib/systemd/*",
    "/var/lib/rsyslog/*",
    "/run/*",
    "/tmp/*",
]

WRECK = """
set -e
echo changed > /etc/motd
rm -rf /usr/share/bash-completion /etc/issue
mkdir /etc/issue
mv /usr/share/doc /usr/share/doc2
rm -rf /usr/share/misc && mkdir /usr/share/misc
chmod 700 /etc/ssl
chown anneal /usr/bin/file
setfacl -m u:anneal:r /etc/shadow
setcap cap_net_raw+ep /usr/bin/less
ln /etc/hosts /etc/hosts.hard
ln -s nowhere /etc/dangling
sed -i 's/^PASS_MAX_DAYS.*/PASS_MAX_DAYS\t60/' /etc/login.defs
mkfifo /etc/fifo
"""


def _stopped_hash(lab: Lab, name: str) -> str:
    """While it runs, a machine writes logs: equality can only be asked of a stopped one."""
    lab.down(name)
    return lab.tree_hash(name)


def test_a_restore_brings_the_root_back_byte_for_byte_before_it_boots(lab: Lab, machine: str, remote: Remote) -> None:
    lab.down(machine)
    lab.snapshot(machine, "g1")
    before = lab.tree_hash(machine)
    lab.up(machine)
    remote(machine, f"sudo sh -c '{WRECK.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'")
    assert _stopped_hash(lab, machine) != before
    lab.restore(machine, "g1", boot=False)
    assert lab.tree_hash(machine) == before
    assert lab.changed(machine, "g1") == []


def test_what_a_machine_writes_to_its_kept_folder_outlives_a_restore(lab: Lab, machine: str, remote: Remote) -> None:
    folder = lab.keep(machine)
    lab.down(machine)
    lab.up(machine)
    lab.snapshot(machine, "g1")
    remote(machine, "sudo sh -c 'echo kept > /run/anneal-lab/kept/note; echo lost > /etc/note'")
    lab.restore(machine, "g1")
    assert remote(machine, "cat /run/anneal-lab/kept/note; ls /etc/note 2>/dev/null || echo gone") == "kept\ngone\n"
    assert (folder / "note").read_text() == "kept\n"
    assert not [path for path in lab.changed(machine, "g1") if "kept" in path]


def test_a_wrecked_state_can_itself_be_kept_and_restored(lab: Lab, machine: str, remote: Remote) -> None:
    remote(machine, f"sudo sh -c '{WRECK.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'")
    wrecked = _stopped_hash(lab, machine)
    lab.snapshot(machine, "wrecked")
    lab.up(machine)
    remote(machine, "sudo sh -c 'rm -f /etc/dangling /etc/fifo; rmdir /etc/issue; echo x > /etc/issue'")
    lab.restore(machine, "wrecked", boot=False)
    assert lab.tree_hash(machine) == wrecked


def test_a_generation_made_out_of_a_spare_one_is_restored_byte_for_byte(lab: Lab, machine: str, remote: Remote) -> None:
    lab.snapshot(machine, "g1")
    remote(machine, f"sudo sh -c '{WRECK.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'")
    wrecked = _stopped_hash(lab, machine)
    lab.snapshot(machine, "g2", recycle="g1")
    assert lab.status(machine).generations == ("g2",)
    lab.up(machine)
    remote(machine, "sudo sh -c 'rm -f /etc/dangling /etc/fifo; rmdir /etc/issue; echo x > /etc/issue'")
    lab.restore(machine, "g2", boot=False)
    assert lab.tree_hash(machine) == wrecked


def test_a_change_of_equal_size_within_one_second_is_reverted_even_with_its_old_time(
    lab: Lab, machine: str, remote: Remote
) -> None:
    remote(machine, "sudo sh -c 'echo yes > /etc/flag'")
    lab.snapshot(machine, "g1")
    remote(machine, "sudo sh -c 'touch -r /etc/flag /root/t; echo no! > /etc/flag; touch -r /root/t /etc/flag'")
    lab.snapshot(machine, "g2")
    lab.restore(machine, "g1")
    assert remote(machine, "cat /etc/flag").strip() == "yes"
    lab.restore(machine, "g2")
    assert remote(machine, "cat /etc/flag").strip() == "no!"


def test_changed_names_what_differs_and_nothing_else(lab: Lab, machine: str, remote: Remote) -> None:
    lab.snapshot(machine, "g1")
    assert lab.changed(machine, "g1", NOISE) == []
    remote(machine, "sudo sh -c 'echo x > /etc/new; chmod 600 /etc/motd; rm /etc/shells'")
    assert lab.changed(machine, "g1", NOISE) == ["/etc/motd", "/etc/new", "/etc/shells"]


def test_dropping_one_generation_leaves_the_others_whole(lab: Lab, machine: str, remote: Remote) -> None:
    for generation in ("g1", "g2", "g3"):
        remote(machine, f"sudo sh -c 'echo {generation} > /etc/generation'")
        lab.snapshot(machine, generation)
    lab.drop(machine, "g2")
    assert lab.status(machine).generations == ("g1", "g3")
    lab.restore(machine, "g1")
    assert remote(machine, "cat /etc/generation").strip() == "g1"


def test_a_machine_that_locked_everybody_out_is_restored_within_the_goal(
    lab: Lab, machine: str, remote: Remote
) -> None:
    lab.snapshot(machine, "good")
    remote(machine, "sudo sh -c 'echo Broken yes >> /etc/ssh/sshd_config; systemctl restart sshd; true' || true")
    with pytest.raises(LabError):
        remote(machine, "true")
    begin = time.monotonic()
    lab.restore(machine, "good")
    assert time.monotonic() - begin < 12
    assert remote(machine, "echo back").strip() == "back"


def test_unknown_generations_and_machines_are_named_in_the_error(lab: Lab, machine: str) -> None:
    with pytest.raises(LabError, match="no generation 'never'"):
        lab.restore(machine, "never")
    assert lab.status(machine).state == "running"
    with pytest.raises(LabError, match="there is no machine 'nosuch'"):
        lab.snapshot("nosuch", "g1")
    with pytest.raises(LabError, match="not valid"):
        lab.snapshot(machine, "../g1")
