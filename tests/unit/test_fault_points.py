"""docs/fault-points.md says of every fault point where it is; nothing is missing on either side."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("supervisor", "worker", "evaluator", "checkpoint", "memory", "gateway")

# In a process of its own: other tests declare points too.
_ASK = """
import importlib, pkgutil, sys
from anneal_runtime import faults
for service in sys.argv[1:]:
    package = importlib.import_module(f"anneal_{service}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(*sorted(faults.KNOWN))
"""


@cache
def declared() -> tuple[str, ...]:
    """The names that all modules of all services declare."""
    done = subprocess.run([sys.executable, "-c", _ASK, *SERVICES], capture_output=True, text=True, check=True)
    return tuple(done.stdout.split())


@cache
def rows() -> dict[str, list[str]]:
    """The page's tables: name -> its other cells."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "docs" / "fault-points.md").read_text().splitlines():
        if line.startswith("| `"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            assert name.strip("`") not in found, f"{name} is there twice"
            found[name.strip("`")] = cells
    return found


def test_the_page_and_the_code_name_the_same_points() -> None:
    assert sorted(rows()) == list(declared())


def test_every_point_is_of_a_service_and_says_what_is_durable_around_it_and_what_recovery_does() -> None:
    for name, cells in rows().items():
        assert name.partition(".")[0] in SERVICES
        assert len(cells) == 4, name
        assert all(cells), name


@pytest.mark.parametrize("service", SERVICES)
def test_a_point_is_where_the_page_says(service: str) -> None:
    package = ROOT / "services" / service / "src" / f"anneal_{service}"
    for name, (place, *_) in rows().items():
        if name.startswith(f"{service}."):
            source = (package / place.strip("`")).read_text()
            assert f'declare("{name}")' in source or f'points("{service}")' in source, name


def test_every_declared_point_is_passed_somewhere() -> None:
    sources = [p for s in SERVICES for p in (ROOT / "services" / s / "src").rglob("*.py")]
    for path in sources:
        text = path.read_text()
        for constant in re.findall(r"^(\w+) = declare\(", text, flags=re.MULTILINE):
            assert f"faultpoint({constant})" in text, f"{path}: {constant} is declared and never reached"
