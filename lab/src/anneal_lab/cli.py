"""`python -m anneal_lab` and `anneal-lab`: the lab from a terminal."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from anneal_lab.lab import Lab
from anneal_lab.model import Access, LabError, MachineStatus
from anneal_lab.preflight import install_host_packages, preflight


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 1 failed, 2 wrong usage, 3 the host lacks something (preflight); `ssh` returns the command's status."""
    options = _parser().parse_args(argv)
    lab = Lab(options.home)
    try:
        command: Callable[[Lab, argparse.Namespace], int] = options.run
        return command(lab, options)
    except LabError as error:
        print(f"anneal-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("anneal-lab: interrupted; running the same command again is safe", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anneal-lab", description="A disposable EL9-like machine to practise on.")
    parser.add_argument(
        "--home",
        type=Path,
        default=None,
        help="the lab's folder (default: $ANNEAL_HOME/lab or ~/.local/share/anneal/lab)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Lab, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    add("build", _build, "build the image, unless the one there is up to date").add_argument(
        "--force", action="store_true", help="build even so"
    )
    for name, run, text in (
        ("up", _up, "boot a machine and wait for its SSH"),
        ("down", _down, "stop a machine hard; its disk stays"),
        ("reset", _reset, "put a machine back to the pristine image and boot it"),
    ):
        add(name, run, text).add_argument("name", nargs="?", default="lab")
    add("delete", _delete, "remove a machine and its snapshots").add_argument("name")
    ssh = add("ssh", _ssh, "a shell on a machine, or one command: ssh [-n NAME] [COMMAND...]")
    ssh.add_argument("-n", "--name", default="lab")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    status = add("status", _status, "what there is")
    status.add_argument("name", nargs="?", default=None)
    status.add_argument("--json", action="store_true")
    clone = add("clone", _clone, "a running copy of a machine ('' or - for the pristine image)")
    clone.add_argument("source")
    clone.add_argument("to")
    checks = add("preflight", _preflight, "say what this host lacks")
    checks.add_argument("--json", action="store_true")
    checks.add_argument("--install", action="store_true", help="install missing packages with apt first")
    return parser


def _build(lab: Lab, options: argparse.Namespace) -> int:
    lab.build(force=options.force, progress=lambda line: print(line, flush=True))
    return 0


def _booted(name: str, boot: Callable[[], Access]) -> int:
    begin = time.monotonic()
    access = boot()
    print(f"{name} is up at {access.user}@{access.host} after {time.monotonic() - begin:.1f} s")
    return 0


def _up(lab: Lab, options: argparse.Namespace) -> int:
    return _booted(options.name, lambda: lab.up(options.name))


def _reset(lab: Lab, options: argparse.Namespace) -> int:
    return _booted(options.name, lambda: lab.reset(options.name))


def _clone(lab: Lab, options: argparse.Namespace) -> int:
    source = "" if options.source == "-" else options.source
    return _booted(options.to, lambda: lab.clone(source, options.to))


def _down(lab: Lab, options: argparse.Namespace) -> int:
    lab.down(options.name)
    print(f"{options.name} is down")
    return 0


def _delete(lab: Lab, options: argparse.Namespace) -> int:
    lab.delete(options.name)
    print(f"{options.name} is gone")
    return 0


def _ssh(lab: Lab, options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    return lab.run_ssh(options.name, command)


def _status(lab: Lab, options: argparse.Namespace) -> int:
    names = [options.name] if options.name else lab.machines()
    found = [lab.status(name) for name in names]
    if options.json:
        print(json.dumps({"image": lab.image_id(), "machines": [asdict(each) for each in found]}, default=str))
        return 0
    print(f"image {lab.image_id() or 'none yet: anneal-lab build'}")
    for each in found:
        print(_line(each))
    return 0


def _line(status: MachineStatus) -> str:
    where = f"{status.access.user}@{status.access.host}" if status.access else "-"
    image = f"image {status.image or '-'}, {len(status.generations)} generations"
    return f"{status.name:10} {status.state:8} {where:24} {image}"


def _preflight(lab: Lab, options: argparse.Namespace) -> int:
    if options.install:
        install_host_packages(lambda line: print(line, file=sys.stderr, flush=True))
    problems = preflight(options.home)
    if options.json:
        print(json.dumps([asdict(problem) for problem in problems]))
        return 3 if problems else 0
    for problem in problems:
        print(f"{problem.what}\n  why:  {problem.why}\n  mend: {problem.mend}")
    if not problems:
        print("this host can build and boot the lab")
    return 3 if problems else 0
