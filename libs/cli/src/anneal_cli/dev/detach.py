"""`anneal dev --detach`: starts the same command in the background and relays its phases until it is ready."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import click

from anneal_cli.dev.state import read_state
from anneal_cli.exits import ExitCode
from anneal_cli.home import Home
from anneal_cli.output import emit_json


def start_detached(home: Home, arguments: Sequence[str], *, as_json: bool) -> int:
    """Starts with these options of `anneal dev`. Returns 0 once everything is ready; else says why on stderr."""
    reader, writer = os.pipe()
    complaint = home.root / "log" / "dev.err"
    home.make()
    with complaint.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "anneal_cli", "dev", *arguments, "--report-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(writer,),
            start_new_session=True,
            env={**os.environ, "ANNEAL_HOME": str(home.root)},
        )
    os.close(writer)
    with os.fdopen(reader) as lines:
        for line in lines:
            if not as_json:
                click.echo(line, nl=False)
    if _became_ready(home, process):
        if as_json:
            state = read_state(home)
            emit_json({"pid": process.pid, "ports": state.ports if state else {}, "phase": "ready"})
        return 0
    click.echo(complaint.read_text().strip(), err=True)
    return process.returncode or int(ExitCode.NOT_HELD)


def _became_ready(home: Home, process: "subprocess.Popen[bytes]") -> bool:
    """The pipe was closed, by readiness or by the end of the process: tells them apart."""
    while process.poll() is None:
        state = read_state(home)
        if state is not None and state.pid == process.pid and state.phase == "ready":
            process.returncode = 0  # it lives on without us: no warning about a child still running
            return True
        time.sleep(0.05)
    return False
