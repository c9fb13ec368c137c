"""What embedded mode runs, on which ports, with which environment. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Offsets from the port base, in the order in which status shows them.
OFFSETS: dict[str, int] = {
    "postgres": 60,
    "nats": 70,
    "model": 80,
    "supervisor": 10,
    "worker": 20,
    "evaluator": 30,
    "memory": 40,
    "checkpoint": 50,
    "gateway": 0,
    "gateway-http": 1,
}
SERVICES = ("checkpoint", "memory", "evaluator", "supervisor", "worker", "gateway")
DEFAULT_BASE = 7400
DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The upstream that the gateway is told of. Empty url: the local model server with the weights of this name."""

    url: str = ""
    name: str = ""
    may: str = ""
    local: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One embedded installation: everything that decides what is started and how."""

    home: Path
    token: str
    skills_dir: Path
    port_base: int = DEFAULT_BASE
    model: ModelChoice = ModelChoice()
    log_level: str = "INFO"
    # anneal.yaml with model profiles.
    models_file: Path | None = None

    def port(self, name: str) -> int:
        """Port of a part of OFFSETS."""
        return self.port_base + OFFSETS[name]

    def address(self, name: str) -> str:
        return f"{LOOPBACK}:{self.port(name)}"

    def ports(self) -> dict[str, int]:
        """Every port that will be listened on, by part."""
        return {name: self.port(name) for name in OFFSETS if name != "model" or self.runs_model}

    @property
    def runs_model(self) -> bool:
        """Is a local model server part of the tree?"""
        return self.model.local and not self.model.url

    @property
    def local_model(self) -> str:
        """Name of the weights that the local model server serves."""
        return self.model.name or DEFAULT_MODEL

    def model_address(self) -> str:
        """Where models are asked; empty where none is to be used."""
        return self.model.url or (f"http://{self.address('model')}/v1" if self.runs_model else "")

    def model_environment(self) -> dict[str, str]:
        """What the gateway is told of models."""
        told = {"ANNEAL_LOCAL_MODEL_URL": f"http://{self.address('model')}/v1"}
        told |= {"ANNEAL_MODELS_FILE": str(self.models_file)} if self.models_file else {}
        if self.model.url:
            # A model that somebody names on purpose is there to author, unless they say otherwise.
            may = self.model.may or "author"
            told |= {"ANNEAL_MODEL_URL": self.model.url, "ANNEAL_MODEL_NAME": self.model.name, "ANNEAL_MODEL_MAY": may}
        return told

    def environment(self, service: str, *, dsn: str, inherited: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of one service: what was inherited, without our own command line's settings."""
        ours = {
            "ANNEAL_LISTEN": self.address(service),
            "ANNEAL_POSTGRES_DSN": dsn,
            "ANNEAL_NATS_URL": f"nats://{self.address('nats')}",
            "ANNEAL_AUTH_TOKEN": self.token,
            "ANNEAL_SKILLS_DIR": str(self.skills_dir),
            "ANNEAL_HOME": str(self.home),
            "ANNEAL_LOG_LEVEL": self.log_level,
            "PYTHONUNBUFFERED": "1",
            # No service forks without an exec at once: gRPC's care for forks would only warn about each of them.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        addresses = {f"ANNEAL_{name.upper()}_ADDR": self.address(name) for name in SERVICES if name != "gateway"}
        only_gateway = {"ANNEAL_HTTP_LISTEN": self.address("gateway-http"), **self.model_environment()}
        base = {key: value for key, value in inherited.items() if key not in _OWN_SETTINGS}
        for_others = {"ANNEAL_GATEWAY_URL": f"http://{self.address('gateway-http')}"}
        # ANNEAL_GATEWAY_* is the gateway's own prefix: it would refuse the address meant for the others.
        return base | ours | addresses | (only_gateway if service == "gateway" else for_others)

    def command(self, service: str) -> list[str]:
        return [sys.executable, "-m", f"anneal_{service}"]


# Settings of the command line itself: no service knows them.
_OWN_SETTINGS = frozenset({"ANNEAL_TOKEN", "ANNEAL_GATEWAY", "ANNEAL_PORT_BASE", "ANNEAL_DEBUG"})


def find_skills(start: Path | None = None) -> Path | None:
    """The `skills` folder of the checkout this package is installed from (editable install); None outside of one."""
    here = (start or Path(__file__)).resolve()
    for folder in here.parents:
        if (folder / "skills").is_dir() and (folder / "libs").is_dir():
            return folder / "skills"
    return None
