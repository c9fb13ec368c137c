"""docs/cli.md says what the commands are, all of them, and as they are now."""

from pathlib import Path

from anneal_cli.reference import pages, reference

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_document_is_the_one_the_commands_give() -> None:
    assert DOCUMENT.read_text() == reference(), "run: python -m anneal_cli.reference > docs/cli.md"


def test_every_option_says_what_it_means() -> None:
    for name, command in pages():
        for param in command.params:
            if not getattr(param, "hidden", False) and param.param_type_name == "option":
                assert getattr(param, "help", ""), f"{name} {param.opts}"
