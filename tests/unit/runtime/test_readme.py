"""The README's table is the code's table."""

from pathlib import Path

from anneal_runtime import errors
from anneal_runtime.errors import AnnealError

README = Path(__file__).parents[3] / "libs/runtime/README.md"


def test_the_readme_shows_the_table_as_it_is() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AnnealError)]
    rows = {
        f"| {c.__name__} | {c.reason} | {c.grpc_status.name} | {c.http_status} | {'yes' if c.retryable else 'no'} |"
        for c in classes
        if c is not AnnealError
    }
    shown = {line for line in README.read_text().splitlines() if line.count("|") == 6 and line[2].isupper()}
    assert shown == rows
