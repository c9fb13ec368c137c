"""RPMs made for the lab (thin)."""
from __future__ import annotations
from collections.abc import Callable
from pathlib import Path
def furnish(root: Path, work: Path, say: Callable[[str], None]) -> None:
    """nothing yet"""
