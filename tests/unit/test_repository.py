"""The repository's own rules, as far as a test can hold them."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from anneal_checkpoint.settings import CheckpointSettings
from anneal_evaluator.settings import EvaluatorSettings
from anneal_gateway.settings import GatewaySettings
from anneal_memory.settings import MemorySettings
from anneal_runtime.settings import ServiceSettings
from anneal_supervisor.settings import SupervisorSettings
from anneal_worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]

SERVICES: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "supervisor": SupervisorSettings,
    "worker": WorkerSettings,
    "evaluator": EvaluatorSettings,
    "memory": MemorySettings,
    "checkpoint": CheckpointSettings,
}
SERVICE_HEADINGS = ["Owns", "Does not own", "RPCs", "Subjects", "Settings", "When something dies"]
ADR_HEADINGS = ["Context", "Decision", "What we give up", "When to revisit"]

# Words of one skill's trade. The engine works for every skill, so it may know none of them.
TRADE = re.compile(r"(?<![a-z])stig|oscap|openscap|xccdf|(?<![a-z])scap(?![a-z])|(?<![a-z])oval(?![a-z])|cklb|ssg-")
ENGINE = ("libs/contracts/", "libs/core/", "libs/runtime/", "libs/skillkit/", "libs/cli/", "services/", "protos/")
TRADE_EXEMPT = {
    "libs/skillkit/src/anneal_skillkit/policy_rules.yaml": "the gate must name the checkers that no script may touch",
    "libs/cli/src/anneal_cli/commands/bench.py": "the command is named after the peer that it measures",
    "libs/cli/src/anneal_cli/checkup.py": "anneal doctor looks for the programs that the lab and its skill need",
    "libs/cli/src/anneal_cli/commands/run.py": "help text: an example and the usual kind of tailoring file",
    "libs/cli/src/anneal_cli/commands/runs.py": "help text, and the file ending that chooses a skill's report format",
    "libs/cli/src/anneal_cli/reference.py": "examples of the command reference",
    "libs/cli/src/anneal_cli/root.py": "help text: the first steps",
}

GENERATED = re.compile(r"^docs/cli\.md$|^libs/contracts/src/anneal/|^requirements/")
# Put together from pieces, so that this file does not find itself.
HOSTS = re.compile(
    "|".join(
        re.escape(name + "." + ending)
        for name, ending in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("yarnpkg", "com"),
            ("debian", "org"),
            ("apache", "org/maven2"),
            ("maven", "org"),
            ("golang", "org"),
            ("crates", "io"),
            ("docker", "io"),
            ("ghcr", "io"),
            ("quay", "io"),
            ("huggingface", "co"),
        )
    )
)
# Where work happens on the machine at hand; a longer path such as /data/work/x is nobody's.
HERE = re.compile(r"(?<![\w.$}/*-])/(?:wo" + r"rk|ro" + r"ot)/|/bash_" + "jobs")
# A target has a home folder of its own.
HERE_EXEMPT = ("skills/", "lab/", "tests/", "libs/skillkit/", "libs/runtime/src/anneal_runtime/embedded_place.py")

MAX_FILE, MAX_FUNCTION = 500, 70


@cache
def committed() -> tuple[str, ...]:
    """Paths of all files that git tracks and that are there."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(path for path in done.stdout.split("\0") if path and (ROOT / path).is_file())


@cache
def text_of(path: str) -> str:
    """Content of a file; empty for one that is no text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def engine_files() -> Iterator[tuple[str, str]]:
    """Path and text of what belongs to the engine; of protos only the statements, since a comment decides nothing."""
    for path in committed():
        if path.startswith(ENGINE) and not GENERATED.match(path) and not path.endswith(".md"):
            text = text_of(path)
            yield path, re.sub(r"//.*", "", text) if path.endswith(".proto") else text


def headings(path: Path) -> list[str]:
    """Second-level headings outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^## (.+?)\s*$", text, flags=re.MULTILINE)


def section(path: Path, heading: str) -> str:
    """The text under a second-level heading."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
    return found.group(1) if found else ""


def readme(service: str) -> Path:
    return ROOT / "services" / service / "README.md"


def test_there_is_something_to_look_at() -> None:
    assert len([path for path, _ in engine_files() if path.endswith(".py")]) > 100
    assert any(path.endswith(".proto") for path, _ in engine_files())


def test_the_engine_holds_no_word_of_one_skills_trade() -> None:
    found = {
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in engine_files()
        if path not in TRADE_EXEMPT
        for number, line in enumerate(text.splitlines(), start=1)
        if TRADE.search(line.lower())
    }
    assert not found, "\n".join(sorted(found))


def test_an_exemption_from_the_trades_words_is_still_needed() -> None:
    texts = dict(engine_files())
    idle = [path for path in TRADE_EXEMPT if not TRADE.search(texts.get(path, "").lower())]
    assert not idle, f"take these out of the list: {idle}"


@pytest.mark.parametrize("line", ["runs STIG rules", "oscap eval", "an XCCDF file", "x.cklb", "ssg-rhel9-ds.xml"])
def test_a_word_of_the_trade_is_found(line: str) -> None:
    assert TRADE.search(line.lower())


@pytest.mark.parametrize("line", ["we investigate", "removal", "landscape", "an approval"])
def test_a_common_word_is_no_word_of_the_trade(line: str) -> None:
    assert not TRADE.search(line.lower())


def test_no_committed_file_names_a_registrys_host() -> None:
    found = [path for path in committed() if HOSTS.search(text_of(path))]
    assert not found


def test_no_committed_file_names_a_path_of_this_machine() -> None:
    found = [path for path in committed() if not path.startswith(HERE_EXEMPT) and HERE.search(text_of(path))]
    found += [path for path in committed() if "/wo" + "rk/main" in text_of(path)]
    assert not found


def test_no_file_is_over_500_lines() -> None:
    code = (".py", ".sh", ".sql", ".proto", ".md", ".yaml", ".j2", ".css", ".toml")
    long = {
        path: lines
        for path in committed()
        if path.endswith(code) and not GENERATED.match(path) and (lines := len(text_of(path).splitlines())) > MAX_FILE
    }
    assert not long


def test_no_function_is_over_70_lines() -> None:
    long = []
    for path in committed():
        if not path.endswith(".py") or GENERATED.match(path):
            continue
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert not long, "\n".join(long)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_headings(service: str) -> None:
    assert headings(readme(service)) == SERVICE_HEADINGS


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_readme_names_every_setting_of_its_own(service: str) -> None:
    told = section(readme(service), "Settings")
    own = [name for name in SERVICES[service].model_fields if name not in ServiceSettings.model_fields]
    missing = [name for name in own if name not in told and name.upper() not in told]
    assert own
    assert not missing


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_readme_names_every_rpc_of_its_contract(service: str) -> None:
    proto = (ROOT / f"protos/anneal/{service}/v1/{service}.proto").read_text(encoding="utf-8")
    rpcs = re.findall(r"^\s*rpc (\w+)\(", proto, flags=re.MULTILINE)
    told = section(readme(service), "RPCs")
    assert rpcs
    assert not [rpc for rpc in rpcs if rpc not in told]


def test_every_decision_has_the_four_sections_and_fits_a_page() -> None:
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1))
    for page in pages:
        assert headings(page) == ADR_HEADINGS, page.name
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 80, page.name


def test_the_list_of_decisions_is_complete() -> None:
    listed = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    assert not [page.name for page in (ROOT / "docs/adr").glob("[0-9]*.md") if f"({page.name})" not in listed]


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in (p for p in committed() if p.endswith(".md")):
        text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, part = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            there = (ROOT / path).parent / target if target else ROOT / path
            if not there.exists() or (part and part not in anchors(there)):
                broken.append(f"{path}: {link}")
    assert not broken, "\n".join(broken)


def anchors(path: Path) -> set[str]:
    """Names by which headings of a document can be linked to, as forges make them."""
    titles = re.findall(r"^#+ (.+?)\s*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
