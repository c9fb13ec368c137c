"""The process with Ansible loaded: `python -m anneal_skillkit.ansible_helper`, a JSON job a line, a JSON answer a line.

Loading Ansible takes a second or more; a fork of a process that has it takes milliseconds. Each job runs in a fork of
its own, so nothing of one run reaches the next. Ends when its input ends or nobody has asked for IDLE_S.
"""

import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

IDLE_S: Final = 90.0
_OUTPUT_LIMIT: Final = 64 * 1024
# Set before Ansible is imported: it reads its configuration then.
_SETTINGS: Final = {
    "ANSIBLE_HOST_KEY_CHECKING": "True",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_DEVEL_WARNING": "False",
    "ANSIBLE_LOCALHOST_WARNING": "False",
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.host_list",
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_TIMEOUT": "10",
    "ANSIBLE_REMOTE_TEMP": "/run/anneal/ansible",
    "ANSIBLE_SSH_RETRIES": "0",
    "ANSIBLE_FORKS": "1",
    # The vendor's fixes are older than this Ansible, which has become stricter with conditions.
    "ANSIBLE_ALLOW_BROKEN_CONDITIONALS": "True",
    "LC_ALL": "C.UTF-8",
}


def main() -> int:
    """Answers jobs until the input ends or nobody asks."""
    with tempfile.TemporaryDirectory(prefix="anneal-ansible-home-") as home:
        return _serve(Path(home))


def _serve(home: Path) -> int:
    config = home / "ansible.cfg"
    config.touch()
    os.environ.update(_SETTINGS, ANSIBLE_CONFIG=str(config), ANSIBLE_LOCAL_TEMP=str(home / "tmp"))
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _preload()
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], IDLE_S)
        chunk = os.read(0, 1 << 16) if ready else b""
        if not chunk:
            return 0
        pending += chunk
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")


def _preload() -> None:
    """Imports what every run needs."""
    import ansible.cli.playbook
    import ansible.executor.playbook_executor
    import ansible.executor.task_queue_manager
    import ansible.plugins.action.normal
    import ansible.plugins.connection.ssh
    import ansible.plugins.strategy.linear  # noqa: F401
    import jinja2  # noqa: F401


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one job in a fork, which is killed with all that it started when its time is over."""
    folder = Path(job["folder"])
    output = folder / "output"
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _run(job, folder, output)
        finally:
            sys.stdout.flush()
            os._exit(code)
    status, late = _wait(child, began + float(job["timeout_s"]))
    said = output.read_bytes()[-_OUTPUT_LIMIT:].decode("utf-8", "replace") if output.exists() else ""
    return {"exit_code": status, "timed_out": late, "output": said, "seconds": time.monotonic() - began}


def _wait(child: int, until: float) -> tuple[int, bool]:
    """The child's exit code, and whether it had to be killed."""
    pidfd = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([pidfd], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            _kill_tree(child)
        _, status = os.waitpid(child, 0)
        return (124, True) if not ready else (os.waitstatus_to_exitcode(status), False)
    finally:
        os.close(pidfd)


def _kill_tree(pid: int) -> None:
    """Ends a process and all below it: Ansible's workers have sessions of their own, a group does not reach them."""
    try:
        os.kill(pid, signal.SIGSTOP)
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in below:
            _kill_tree(int(child))
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return


def _run(job: Mapping[str, Any], folder: Path, output: Path) -> int:
    """In the fork: the play, with its words going to a file. 0: no task failed."""
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    from ansible.cli.playbook import PlaybookCLI

    play = _play(job, folder)
    inventory = f"{job['host']},"
    cli = PlaybookCLI(["ansible-playbook", "-i", inventory, str(play)])
    cli.parse()
    code = cli.run()
    return int(code or 0)


def _play(job: Mapping[str, Any], folder: Path) -> Path:
    """Writes the play: the tasks as they are shown, after only those facts that they use."""
    # cacheable puts them among ansible_facts, where the package and service actions look as well.
    before = [{"name": "Facts from outside", "ansible.builtin.set_fact": {**job["own_facts"], "cacheable": True}}]
    if job["facts"]:
        before.append({"name": "More facts", "ansible.builtin.setup": {"gather_subset": job["facts"]}})
    strict = (
        f"-o UserKnownHostsFile={folder / 'known_hosts'} -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null"
    )
    play = {
        "name": "fix",
        "hosts": "all",
        "gather_facts": False,
        "become": job["user"] != "root",
        "vars": {
            **{f"ansible_{name}": value for name, value in job["own_facts"].items()},
            "ansible_port": job["port"],
            "ansible_user": job["user"],
            "ansible_ssh_private_key_file": job["key_path"],
            "ansible_ssh_common_args": f"-F /dev/null {strict} -o IdentitiesOnly=yes -o BatchMode=yes",
            # One shared connection for the tasks of this run, none for the next: the machine may have been restored.
            "ansible_control_path_dir": str(folder),
            "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=3s -o ServerAliveInterval=3",
            "ansible_python_interpreter": "/usr/bin/python3",
            # Gone as soon as a newer effect or a boot has overtaken this one: what comes after that does not run.
            "ansible_shell_executable": job["shell"],
        },
        "pre_tasks": before,
        "tasks": [{"ansible.builtin.import_tasks": str(folder / "tasks.yml")}],
    }
    path = folder / "play.yml"
    path.write_text(json.dumps([play]), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
