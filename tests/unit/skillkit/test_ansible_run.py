"""Ansible fixes: read before they run, run by the helper over real SSH, under the markers of every effect."""

from pathlib import Path

import pytest
from anneal_runtime.errors import InvalidArgument
from anneal_skillkit.ansible_run import (
    AnsibleUnavailable,
    close_helper,
    facts_wanted,
    missing_modules,
    modules_of,
    run_ansible,
    tasks_of,
)
from anneal_skillkit.effects import Finished, NeverStarted, read_markers
from anneal_skillkit.ssh import connect

from tests.support.permits import permit_for

from .conftest import SshServer

KEY = "ansible-effect-1"


def test_the_modules_of_a_fix_are_found_inside_blocks_too() -> None:
    text = """
- name: a
  block:
    - ansible.builtin.stat: {path: /x}
      register: r
    - lineinfile: {path: /x, line: y}
      when: r.stat.exists
  rescue:
    - debug: {msg: no}
- sysctl: {name: a.b, value: "1"}
  with_items: [1]
"""
    assert list(modules_of(tasks_of(text))) == ["ansible.builtin.stat", "lineinfile", "debug", "sysctl"]
    assert missing_modules(text) == ["sysctl"]
    assert missing_modules("- community.general.ini_file: {path: /x}") == ["community.general.ini_file"]
    assert missing_modules("not: a list") == ["(unreadable)"]


@pytest.mark.parametrize("text", ["a: b", "- just text", "- [", "- name: !unsafe x"])
def test_what_is_no_list_of_tasks_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        tasks_of(text)


def test_only_facts_that_are_used_are_gathered() -> None:
    assert facts_wanted("- command: id") is None
    assert facts_wanted("when: ansible_virtualization_type not in ['docker']") is None
    assert facts_wanted('when: "audit" in ansible_facts.packages') is None
    assert facts_wanted("when: ansible_distribution_major_version == '9'") == ["!all", "!min", "distribution"]
    assert facts_wanted("when: ansible_facts['memory_mb']") == ["all"]
    assert facts_wanted("when: ansible_default_ipv4.address") == ["all"]


@pytest.mark.timeout(120)
async def test_tasks_run_on_the_target_under_the_effects_markers(ssh_server: SshServer, tmp_path: Path) -> None:
    session = await connect(ssh_server.access)
    text = f"""
- name: once
  ansible.builtin.lineinfile: {{path: {tmp_path}/file, line: "{{{{ ansible_architecture }}}}", create: true}}
- name: count
  shell: echo x >>{tmp_path}/count
"""
    try:
        done = await run_ansible(session, await permit_for(session, KEY), text, timeout_s=60)
        assert done.exit_code == 0, done.stdout.decode()
        assert (tmp_path / "file").read_text().strip() in ("x86_64", "aarch64")
        again = await run_ansible(session, await permit_for(session, KEY), text, timeout_s=60)
        assert (again.exit_code, (tmp_path / "count").read_text()) == (0, "x\n")

        failed = await run_ansible(
            session, await permit_for(session, "ansible-effect-2"), "- name: no\n  command: 'false'\n", timeout_s=60
        )
        assert failed.exit_code == 2
        markers = await read_markers(session, "ansible-effect-2")
        assert isinstance(markers, Finished)
        assert markers.exit_code == 2

        slow = await run_ansible(
            session, await permit_for(session, "ansible-effect-3"), "- name: slow\n  command: sleep 30\n", timeout_s=4
        )
        assert (slow.timed_out, slow.exit_code) == (True, 124)
    finally:
        await close_helper()
        await session.close()


async def test_a_fix_whose_module_is_missing_leaves_no_trace(ssh_server: SshServer) -> None:
    session = await connect(ssh_server.access)
    with pytest.raises(AnsibleUnavailable, match="sysctl"):
        await run_ansible(session, await permit_for(session, KEY), "- sysctl: {name: a.b, value: '1'}\n", timeout_s=10)
    assert await read_markers(session, KEY) == NeverStarted()
    await session.close()
