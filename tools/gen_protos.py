"""Generates the Python stubs of protos/ into libs/contracts/src (proto path = package path), or checks them for drift.

Usage: gen_protos.py [--check]
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUT = ROOT / "libs" / "contracts" / "src"


def generate(out: Path) -> None:
    """Writes *_pb2.py, *_pb2.pyi, *_pb2_grpc.py and *_pb2_grpc.pyi below out; raises RuntimeError if it fails."""
    sources = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.rglob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    args = ["protoc", f"-I{PROTOS}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    code = protoc.main([*args, f"--mypy_out={out}", f"--mypy_grpc_out={out}", *sources])
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")
    for folder in {p.parent for p in out.rglob("*_pb2.py")}:
        for package in [folder, *folder.parents]:
            if package == out:
                break
            (package / "__init__.py").touch()


def drift(fresh: Path) -> list[str]:
    """Names the generated files that differ from what is committed, both ways."""
    names = {
        p.relative_to(base)
        for base in (fresh, OUT)
        for p in (base / "anneal").rglob("*.py*")
        if "__pycache__" not in p.parts
    }
    return sorted(
        str(n)
        for n in names
        if not (fresh / n).exists() or not (OUT / n).exists() or not filecmp.cmp(fresh / n, OUT / n, shallow=False)
    )


def main() -> int:
    if "--check" not in sys.argv[1:]:
        generate(OUT)
        return 0
    with tempfile.TemporaryDirectory() as tmp:
        generate(Path(tmp))
        stale = drift(Path(tmp))
    if stale:
        print("generated stubs are stale, run `make proto`:", *stale, sep="\n  ")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
