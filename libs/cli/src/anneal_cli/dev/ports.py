"""Finds out before the start which port is taken, and by whom."""

import socket
from collections.abc import Mapping

import psutil

from anneal_cli.dev.plan import LOOPBACK
from anneal_cli.exits import CliError, ExitCode


def is_free(port: int) -> bool:
    """Could we listen there now? Connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def owner(port: int) -> str:
    """The process that listens on a port, as "pid N (name)"; empty where it cannot be known."""
    try:
        listening = [
            c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        ]
        pid = next((c.pid for c in listening if c.pid), None)
        return f"pid {pid} ({psutil.Process(pid).name()})" if pid else ""
    except psutil.Error:
        return ""


def require_free(ports: Mapping[str, int], *, port_base: int) -> None:
    """Raises CliError that names the first taken port, who has it, and how to choose others."""
    for name, port in ports.items():
        if is_free(port):
            continue
        by = owner(port)
        raise CliError(
            message=f"port {port} ({name}) is taken{' by ' + by if by else ''}",
            code=ExitCode.CONFLICT,
            field="--port-base",
            hint=f"end it, or take other ports: anneal dev --port-base {port_base + 1000} (or ANNEAL_PORT_BASE)",
        )
