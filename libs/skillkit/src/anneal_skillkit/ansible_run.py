"""Ansible fixes: a list of tasks run by ansible-core on this side against the target, by SSH with its host key pinned.

A helper process with Ansible loaded is started at first use and forks for each run: loading costs more than running.
It ends by itself when nobody has asked for a while. The run stands under the same markers as every effect.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from anneal_contracts.facts import TargetAccess
from anneal_runtime.errors import FailedPrecondition, InvalidArgument

from anneal_skillkit.effects import (
    OUTPUT_LIMIT,
    begin_effect,
    end_effect,
    result_of,
    shell_of,
)
from anneal_skillkit.interfaces import ExecResult, Permit, TargetSession
from anneal_skillkit.ssh import checked

# Words of a task that are not the name of its module.
_TASK_WORDS: Final = frozenset(
    """name when tags register with_items with_together with_nested with_dict loop loop_control until retries delay
    changed_when failed_when check_mode ignore_errors vars notify no_log become become_user become_method environment
    args delegate_to run_once any_errors_fatal block rescue always listen throttle timeout collections module_defaults
    remote_user connection port diff debugger delegate_facts action local_action""".split()  # noqa: SIM905
)
_FACT: Final = re.compile(r"""\bansible_(?:facts(?:\.|\[['"]))?([a-z]\w*)""")
# Facts that we gather ourselves in one exec, 1 s faster than Ansible's own module. The kind of virtualization is
# systemd's word, in which a system container that boots its own init is told apart from an application container.
_OWN_FACTS: Final = frozenset(
    {"virtualization_type", "architecture", "machine", "kernel", "pkg_mgr", "service_mgr", "os_family"}
)
_PROBE: Final = r"""
mkdir -p -m 0700 /run/anneal
printf 'virtualization_type\t%s\n' "$(systemd-detect-virt 2>/dev/null || true)"
printf 'architecture\t%s\nmachine\t%s\nkernel\t%s\n' "$(uname -m)" "$(uname -m)" "$(uname -r)"
if [ -x /usr/bin/dnf ]; then printf 'pkg_mgr\tdnf\nos_family\tRedHat\n'; fi
if [ -d /run/systemd/system ]; then printf 'service_mgr\tsystemd\n'; fi
"""
_COLLECTOR_BY_FACT: Final = {
    "distribution": "distribution",
    "distribution_version": "distribution",
    "distribution_major_version": "distribution",
    "distribution_release": "distribution",
    "cmdline": "cmdline",
    "mounts": "mounts",
}
_NO_FACTS: Final = frozenset({"check_mode", "python_interpreter", "facts", "packages", "services"})


class AnsibleUnavailable(FailedPrecondition):
    """This installation of Ansible lacks a module that the fix needs."""

    reason = "ansible_unavailable"


# Planning asks twice in a row: which modules it needs, and whether it may run.
@lru_cache(maxsize=4)
def tasks_of(text: str) -> list[dict[str, Any]]:
    """The tasks of a fix. Raises InvalidArgument when it is no list of tasks."""
    try:
        # The safe loader in C: ten times faster. Ansible's own tags are not known to it and fail, as they should.
        tasks = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as e:
        raise InvalidArgument(f"the Ansible fix is not YAML: {' '.join(str(e).split())[:200]}", field="content") from e
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InvalidArgument("the Ansible fix is not a list of tasks", field="content")
    return tasks


def modules_of(tasks: list[dict[str, Any]]) -> Iterator[str]:
    """The module of every task, inside blocks too."""
    for task in tasks:
        for key in ("block", "rescue", "always"):
            if isinstance(task.get(key), list):
                yield from modules_of(task[key])
        yield from (str(key) for key in task if key not in _TASK_WORDS and not str(key).startswith("with_"))


def missing_modules(text: str) -> list[str]:
    """Modules of a fix that are not installed here; a fix that cannot be read misses them all."""
    try:
        names = set(modules_of(tasks_of(text)))
    except InvalidArgument:
        return ["(unreadable)"]
    return sorted(name for name in names if not _installed(name))


async def run_ansible(session: TargetSession, permit: Permit, text: str, *, timeout_s: float) -> ExecResult:
    """Runs the tasks as root on the target under the permit's markers; exit code 0 when no task failed.

    Raises AnsibleUnavailable before anything ran, EffectInterrupted when the key began and never ended, Fenced.
    """
    if missing := missing_modules(text):
        raise AnsibleUnavailable(f"Ansible here has no module {', '.join(missing)}", field="content")
    before = await begin_effect(session, permit, timeout_s=timeout_s)
    if before is not None:
        return result_of(before, permit.key)
    result = await _helper().run(session.access, text, await _own_facts(session), timeout_s, shell_of(permit))
    await end_effect(session, permit, result)
    return result


async def _own_facts(session: TargetSession) -> dict[str, str]:
    done = checked(session.access.name, await session.run(["sh", "-c", _PROBE]), "looking at the system")
    rows = (line.split("\t", 1) for line in done.stdout.decode("utf-8", "replace").splitlines() if "\t" in line)
    return {name: value for name, value in rows if value}


def facts_wanted(text: str) -> list[str] | None:
    """Ansible's fact collectors that a fix needs beside our own facts; None: none of them."""
    names = set(_FACT.findall(text)) - _OWN_FACTS - _NO_FACTS
    if not names:
        return None
    if not names <= _COLLECTOR_BY_FACT.keys():
        return ["all"]
    return ["!all", "!min", *sorted({_COLLECTOR_BY_FACT[name] for name in names})]


@cache
def _installed(module: str) -> bool:
    """Whether a module (short name, ansible.builtin.x or namespace.collection.x) can be found."""
    parts = module.split(".")
    if len(parts) == 1:
        parts = ["ansible", "builtin", *parts]
    if len(parts) != 3:
        return False
    if parts[:2] in (["ansible", "builtin"], ["ansible", "legacy"]):
        places = ("ansible.modules", "ansible.plugins.action")
    else:
        base = f"ansible_collections.{parts[0]}.{parts[1]}.plugins"
        places = (f"{base}.modules", f"{base}.action")
    return any(_has_module(f"{place}.{parts[2]}") for place in places)


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


class AnsibleHelper:
    """The process with Ansible loaded. One run at a time: Ansible's state is its process."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def run(
        self, access: TargetAccess, text: str, facts: Mapping[str, str], timeout_s: float, shell: str
    ) -> ExecResult:
        """Runs the tasks against a target, by a shell there. Raises FailedPrecondition when the helper is silent."""
        async with self._lock:
            with tempfile.TemporaryDirectory(prefix="anneal-ansible-") as name:
                job = {**_write_job(Path(name), access, text), "own_facts": dict(facts), "timeout_s": timeout_s}
                job["shell"] = shell
                answer = await self._ask(job, timeout_s)
        output = str(answer.get("output", "")).encode()[-OUTPUT_LIMIT:]
        return ExecResult(
            exit_code=int(answer.get("exit_code", 1)),
            stdout=output,
            stderr=b"",
            timed_out=bool(answer.get("timed_out")),
        )

    async def close(self) -> None:
        """Ends the helper and the SSH connections that it keeps."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 2.0)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _ask(self, job: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        for fresh in (False, True):
            process = await self._started(fresh=fresh)
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(job).encode() + b"\n")
                await process.stdin.drain()
                line = await asyncio.wait_for(process.stdout.readline(), timeout_s + 20.0)
            except TimeoutError as e:
                await self._kill()
                raise FailedPrecondition("the Ansible helper does not answer") from e
            except asyncio.CancelledError:
                await self._kill()
                raise
            except ConnectionError:
                line = b""
            if line:
                answer: Mapping[str, Any] = json.loads(line)
                return answer
            # It ended by itself because nobody had asked for a while: start another, once.
        raise FailedPrecondition("the Ansible helper ends before it answers")

    async def _started(self, *, fresh: bool) -> asyncio.subprocess.Process:
        if fresh:
            await self.close()
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "anneal_skillkit.ansible_helper",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=1 << 22,
                start_new_session=True,
            )
        return self._process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


_HELPERS: dict[int, AnsibleHelper] = {}


def _helper() -> AnsibleHelper:
    """One helper for each event loop: its pipes belong to the loop that opened them."""
    return _HELPERS.setdefault(id(asyncio.get_running_loop()), AnsibleHelper())


async def close_helper() -> None:
    """Ends this loop's helper, if there is one."""
    helper = _HELPERS.pop(id(asyncio.get_running_loop()), None)
    if helper is not None:
        await helper.close()


def _write_job(folder: Path, access: TargetAccess, text: str) -> dict[str, Any]:
    """Puts the playbook and the pinned host key into a folder; the rest goes in the message."""
    host = access.host if access.port == 22 else f"[{access.host}]:{access.port}"
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"{host} {' '.join(access.host_key.split()[:2])}\n", encoding="utf-8")
    tasks = folder / "tasks.yml"
    tasks.write_text(text, encoding="utf-8")
    if not tasks_of(text):
        raise InvalidArgument("an Ansible fix without tasks", field="content")
    return {
        "folder": str(folder),
        "host": access.host,
        "port": access.port,
        "user": access.user,
        "key_path": access.key_path,
        "facts": facts_wanted(text),
    }
