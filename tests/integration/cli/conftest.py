"""A fake gateway over real gRPC, and the command line called as its users call it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from anneal_cli.__main__ import run

from tests.support.fake_gateway import TOKEN, FakeGateway, serving
from tests.support.sample_run import BLOBS, sample_run


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command ended with and wrote."""

    code: int
    out: str
    err: str


Anneal = Callable[..., Answer]


@pytest.fixture
def gateway() -> FakeGateway:
    """A gateway with the sample run, its scripts and nothing else."""
    fake = FakeGateway()
    fake.put(sample_run())
    fake.blobs.update(BLOBS)
    return fake


@pytest.fixture
def address(gateway: FakeGateway) -> Iterator[str]:
    with serving(gateway) as address:
        yield address


@pytest.fixture
def anneal(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Anneal:
    """Calls a command against the fake gateway."""
    monkeypatch.setenv("ANNEAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANNEAL_TOKEN", TOKEN)
    monkeypatch.setenv("ANNEAL_GATEWAY", address)

    def call(*argv: str) -> Answer:
        code = run(argv)
        written = capsys.readouterr()
        return Answer(code=code, out=written.out, err=written.err)

    return call
