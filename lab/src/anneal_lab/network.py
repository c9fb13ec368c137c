"""Addresses for machines: one /30 each, that clashes with no route this host already has.

The pair itself (veth) is made by the boot script inside the machine's own network namespace and dies with
it, so a killed machine leaves no interface behind. Nothing else of the host's network is touched: no
forwarding, no masquerading, no resolver.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from anneal_lab.layout import home_hash
from anneal_lab.model import LabError
from anneal_lab.proc import run, succeeds

POOL = ipaddress.IPv4Network("10.203.0.0/16")
_PREFIX = 30


def routes_in_use() -> list[ipaddress.IPv4Network]:
    """Every IPv4 network this host routes, except the default route."""
    found: list[ipaddress.IPv4Network] = []
    for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]"):
        destination = str(route.get("dst", ""))
        if destination in ("default", "0.0.0.0/0"):
            continue
        try:
            found.append(ipaddress.IPv4Network(destination, strict=False))
        except ValueError:
            continue
    return found


def allocate(home: Path, name: str, taken: Iterable[str]) -> str:
    """The network for a machine: found by hash, so the same machine usually gets the same address again."""
    slots = list(POOL.subnets(new_prefix=_PREFIX))
    start = int(home_hash(home / name)[:8], 16) % len(slots)
    used = routes_in_use() + [ipaddress.IPv4Network(network) for network in taken]
    for step in range(len(slots)):
        slot = slots[(start + step) % len(slots)]
        if not any(slot.overlaps(other) for other in used):
            return str(slot)
    raise LabError(f"no free network left in {POOL}; `ip route` shows what takes it")


def is_free(network: str) -> bool:
    """False when a route appeared that overlaps a network recorded earlier."""
    wanted = ipaddress.IPv4Network(network)
    return not any(wanted.overlaps(other) for other in routes_in_use())


def host_address(network: str) -> str:
    """The host's end."""
    return str(ipaddress.ip_network(network)[1])


def machine_address(network: str) -> str:
    """The machine's end."""
    return str(ipaddress.ip_network(network)[2])


def interface_exists(interface: str) -> bool:
    return Path(f"/sys/class/net/{interface}").exists()


def remove_interface(interface: str) -> None:
    """Remove a pair that a killed predecessor left; never anything but the machine's own."""
    if interface_exists(interface):
        succeeds(["ip", "link", "delete", interface])
