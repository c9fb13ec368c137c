"""Starting and stopping one machine's processes: systemd-nspawn in namespaces of its own.

The overlay mount and the network pair live in namespaces that die with the machine. So after any crash,
of ours or of the machine, nothing is left but processes, and those are found by their cgroup's name.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from anneal_lab import network
from anneal_lab.layout import MachinePaths
from anneal_lab.model import LabError
from anneal_lab.proc import run

_BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
_STOP_S = 15.0
_POLL_S = 0.01
# Where a machine sees the folder that no generation holds.
KEPT = "/run/anneal-lab/kept"
_last_keeper: dict[str, int] = {}


def processes(paths: MachinePaths) -> list[int]:
    """Every process of the machine and its keeper, by the cgroup's name; the kernel keeps that list for us."""
    found: list[int] = []
    marker = paths.unique
    scope = f"machine-{_escaped(marker)}.scope"
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/cgroup", encoding="utf-8") as handle:
                text = handle.read()
        except OSError:
            continue
        if any(part in (marker, scope) for part in text.replace("\n", "/").split("/")) and not _dead(entry.name):
            found.append(int(entry.name))
    return found


def _dead(pid: str) -> bool:
    """A zombie holds nothing any more; how soon it vanishes is up to the host's PID 1, which may take seconds."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2][1:2] in (b"Z", b"X", b"")


def _escaped(name: str) -> str:
    """systemd's escaping of '-' in unit names, for hosts where systemd itself keeps the scope."""
    return name.replace("-", "\\x2d")


def keeper(paths: MachinePaths) -> int | None:
    """The machine's systemd-nspawn process. The one of last time is looked at first: a search reads all of /proc."""
    known = _last_keeper.get(paths.unique)
    if known is not None and _is_keeper(known, paths):
        return known
    for pid in processes(paths):
        if _is_keeper(pid, paths):
            _last_keeper[paths.unique] = pid
            return pid
    return None


def _is_keeper(pid: int, paths: MachinePaths) -> bool:
    """By its arguments, which a dead process has none of."""
    arguments = _read(f"/proc/{pid}/cmdline").split(b"\0")
    return arguments[0].endswith(b"systemd-nspawn") and f"--machine={paths.unique}".encode() in arguments


def init_process(paths: MachinePaths) -> int | None:
    """The machine's PID 1 as the host sees it."""
    parent = keeper(paths)
    if parent is None:
        return None
    children = _read(f"/proc/{parent}/task/{parent}/children").split()
    return int(children[0]) if children else None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def start(paths: MachinePaths, *, net: str, lower: Path) -> None:
    """Boot the machine. Returns at once; the caller waits for SSH."""
    network.remove_interface(paths.interface)
    for folder in (paths.upper, paths.merged):
        folder.mkdir(parents=True, exist_ok=True)
    empty_work(paths)
    groups = _make_cgroups(paths)
    shim = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1/cgroup.procs"; shift; n=$((n-1)); done; exec "$@"'
    argv: list[str | Path] = ["sh", "-c", shim, "sh", str(len(groups)), *groups]
    argv += ["setsid", "--fork", "unshare", "--mount", "--net", "--propagation", "private", "sh", _BOOT_SCRIPT]
    argv += [paths.interface, str(os.getpid()), network.host_address(net), network.machine_address(net)]
    argv += [os.path.relpath(lower, paths.folder), *_nspawn(paths, managed=not groups)]
    _spawn(argv, paths)


def _nspawn(paths: MachinePaths, *, managed: bool) -> list[str | Path]:
    """The command line of systemd-nspawn. Nothing of the host is shown to the machine, and nothing is registered."""
    argv: list[str | Path] = ["systemd-nspawn", "--quiet", "--boot", "-D", paths.merged]
    argv += [f"--machine={paths.unique}", f"--hostname={paths.name}", "--register=no"]
    argv += ["--network-namespace-path=/proc/self/ns/net", "--link-journal=no"]
    # Its network namespace is its own, so it may change that; without this every net.* setting is refused.
    argv += ["--capability=CAP_NET_ADMIN"]
    argv += ["--resolv-conf=off", "--timezone=off", "--console=read-only"]
    if paths.kept.is_dir():
        argv += [f"--bind={paths.kept}:{KEPT}"]
    return argv if managed else [*argv, "--keep-unit"]


def _spawn(argv: list[str | Path], paths: MachinePaths) -> None:
    """Start detached, with the log as its only output, and `network` as the only writable kernel setting."""
    env = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C.UTF-8"}
    env["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"
    with open(paths.log, "wb") as log:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=paths.folder,
            env=env,
            start_new_session=True,
            check=False,
            timeout=30,
        )
    if done.returncode != 0:
        raise LabError(f"machine {paths.name} could not be started: {tail(paths.log)}")


def tail(log: Path, limit: int = 1200) -> str:
    """The last words of a log, for an error message."""
    try:
        return log.read_text(errors="replace")[-limit:].strip()
    except OSError:
        return "(no log)"


def stop(paths: MachinePaths) -> None:
    """Stop hard, as a pulled plug would: kill PID 1 and let nspawn clean up; then whatever is still there."""
    thaw(paths)
    first = init_process(paths)
    if first is not None:
        _kill(first)
        _wait_gone(paths, 3.0)
    deadline = time.monotonic() + _STOP_S
    while left := processes(paths):
        for pid in left:
            _kill(pid)
        _wait_gone(paths, 0.5)
        if time.monotonic() > deadline:
            raise LabError(f"machine {paths.name}: processes {left[:5]} do not die; is the disk stuck?")
    _wait_interface_gone(paths)
    _remove_cgroups(paths)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_gone(paths: MachinePaths, seconds: float) -> None:
    end = time.monotonic() + seconds
    while processes(paths) and time.monotonic() < end:
        time.sleep(_POLL_S)


def _wait_interface_gone(paths: MachinePaths) -> None:
    """The kernel takes a namespace down a moment after its last process; a new boot needs the name free."""
    end = time.monotonic() + 2
    while network.interface_exists(paths.interface) and time.monotonic() < end:
        time.sleep(_POLL_S)
    network.remove_interface(paths.interface)


def empty_work(paths: MachinePaths) -> None:
    """overlayfs wants its work folder empty; a killed machine leaves one behind that only root may enter."""
    if paths.work.exists():
        shutil.rmtree(paths.work)
    paths.work.mkdir()


def _cgroup_roots() -> list[Path]:
    """Where the machine's cgroup is made: none when the host runs systemd, which then makes a scope itself."""
    if Path("/run/systemd/system").exists():
        return []
    base = Path("/sys/fs/cgroup")
    if (base / "cgroup.procs").exists():
        return [base]
    return [base / part for part in ("systemd", "unified") if (base / part / "cgroup.procs").exists()]


def _make_cgroups(paths: MachinePaths) -> list[Path]:
    """One cgroup for each machine: two systemds in one cgroup would kill each other's services."""
    made = [root / paths.unique for root in _cgroup_roots()]
    for group in made:
        group.mkdir(exist_ok=True)
    return made


def _remove_cgroups(paths: MachinePaths) -> None:
    for root in _cgroup_roots():
        for folder, _, _ in os.walk(root / paths.unique, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue


def _freezer(paths: MachinePaths) -> Path | None:
    for root in _cgroup_roots():
        switch = root / paths.unique / "cgroup.freeze"
        if switch.exists():
            return switch
    return None


def freeze(paths: MachinePaths) -> None:
    """Hold every process of the machine still, so that a copy of its disk is of one moment."""
    switch = _freezer(paths)
    if switch is None:
        return
    switch.write_text("1")
    end = time.monotonic() + 1
    while "frozen 1" not in (switch.parent / "cgroup.events").read_text() and time.monotonic() < end:
        time.sleep(0.001)


def thaw(paths: MachinePaths) -> None:
    """Let it run again; harmless when it runs."""
    switch = _freezer(paths)
    if switch is not None:
        switch.write_text("0")


def enter(paths: MachinePaths, argv: list[str], *, timeout: float = 60) -> str:
    """Run a command inside the machine without SSH; for the lab's own use when SSH is not there (yet)."""
    pid = init_process(paths)
    if pid is None:
        raise LabError(f"machine {paths.name} is not running")
    return run(["nsenter", "--target", str(pid), "--all", "--", *argv], timeout=timeout)
