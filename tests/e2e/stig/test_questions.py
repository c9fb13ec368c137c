"""What a model may ask about an EL9 host: real answers from a real machine, and nothing that is nobody's business."""

import pytest
from anneal_contracts.facts import ProbeState
from anneal_skillkit.probes import ProbeAnswer, ask, probe_tools

from .conftest import Box

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


async def asked(box: Box, tool: str, item: str = "", **arguments: str) -> ProbeAnswer:
    return await ask(probe_tools(box.skill)[tool], box.ctx, item, arguments)


async def test_the_failing_check_tells_what_it_expects_and_what_it_found(box: Box) -> None:
    answer = await asked(box, "show_check", item="sshd_disable_empty_passwords")
    assert answer.text.startswith("The check says: fail.")
    assert "expected:" in answer.text and "found:" in answer.text


async def test_settings_in_force_are_told_wherever_they_come_from(box: Box) -> None:
    sshd = await asked(box, "effective_setting", of="sshd", name="PermitRootLogin")
    assert sshd.text.split(" ")[0] == "permitrootlogin"
    sysctl = await asked(box, "effective_setting", of="sysctl", name="net.ipv4.ip_forward")
    assert sysctl.text in ("net.ipv4.ip_forward = 0", "net.ipv4.ip_forward = 1")
    for of in ("sshd", "sysctl"):
        assert (await asked(box, "effective_setting", of=of, name="no.such")).state is ProbeState.MISSING
        assert (await asked(box, "effective_setting", of=of, name="-w")).state is ProbeState.FAILED
    mount = await asked(box, "mount_of", path="/etc/ssh")
    assert mount.text.split()[0] == "/"


async def test_packages_units_files_and_folders_are_told(box: Box) -> None:
    assert "is installed" in (await asked(box, "query_package", name="redhat-release")).text
    assert (await asked(box, "query_package", name="tmux")).state is ProbeState.MISSING
    assert "ActiveState=active" in (await asked(box, "query_unit", name="ssh.service")).text
    assert "root:root" in (await asked(box, "read_file", path="/etc/ssh/sshd_config")).text
    assert "sshd_config" in (await asked(box, "list_folder", path="/etc/ssh")).text
    found = await asked(box, "search_files", folder="/etc", text="pam_unix.so")
    assert "/etc/pam.d/password-auth:" in found.text


async def test_secrets_of_the_host_are_never_told_whatever_is_asked(box: Box) -> None:
    await box.sh(
        "cp /etc/shadow /etc/harmless.conf; ln -sf /etc/shadow /etc/link.conf; ln -f /etc/shadow /etc/hard.conf"
    )
    for path in ("/etc/shadow", "/etc/link.conf", "/etc/hard.conf", "/etc/ssh/ssh_host_ed25519_key", "/root/.bashrc"):
        answer = await asked(box, "read_file", path=path)
        assert (answer.state, answer.text) == (ProbeState.DENIED, "")
    copied = await asked(box, "read_file", path="/etc/harmless.conf")
    assert "$y$" not in copied.text and "root:" in copied.text
    searched = await asked(box, "search_files", folder="/etc", text="root:")
    assert "/etc/shadow:" not in searched.text
    await box.sh("rm /etc/harmless.conf /etc/link.conf /etc/hard.conf")


async def test_asking_changes_nothing_on_the_host(box: Box) -> None:
    look = "find /etc /usr/lib /boot -xdev -newer /run/anneal-mark; ls -A /tmp"
    before = await box.sh(f"touch /run/anneal-mark; sleep 1.1; {look}")
    await asked(box, "show_check", item="sshd_disable_empty_passwords")
    await asked(box, "read_file", path="/etc/ssh/sshd_config")
    await asked(box, "search_files", folder="/etc", text="root")
    await asked(box, "effective_setting", of="sshd", name="Port")
    assert await box.sh(look) == before
