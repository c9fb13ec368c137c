"""The reference of all commands as Markdown, made from the commands: `python -m anneal_cli.reference > docs/cli.md`.

A test compares the file with this, so that it cannot drift.
"""

import inspect
from collections.abc import Iterator

import click

from anneal_cli.dev.plan import DEFAULT_BASE, OFFSETS
from anneal_cli.exits import MEANING
from anneal_cli.root import cli

_HEAD = """# The `anneal` command

*Made by `python -m anneal_cli.reference > docs/cli.md`; change the commands, not this file.*

```
anneal doctor                                    # is this machine ready? what mends it?
anneal dev                                       # everything on this machine; --detach: in the background
anneal lab build && anneal lab up                # a disposable machine to practise on
anneal target add lab --lab lab
anneal run stig-rhel9 --target lab --dry-run     # every script with its class; touches nothing
anneal run stig-rhel9 --target lab --watch
anneal show last
anneal explain last RULE
anneal report last -o report.html
anneal audit verify last
anneal queue list                                # what waits, and what was given up
```

`RUN` is a run's id, a unique beginning of it, or `last`. `RULE` is an item's id or a unique part of it.
With `--json` a command prints one JSON document (`watch`, `run --watch` and `dev logs`: one a line) and nothing else on
stdout. Errors go to stderr: what is wrong, in which field, and the next step. Colour is used on a terminal only;
`NO_COLOR` turns it off there.

## Exit codes
"""

_ENVIRONMENT = f"""
## Environment

| variable | meaning |
|---|---|
| `ANNEAL_HOME` | data folder of embedded mode; default `~/.local/share/anneal` |
| `ANNEAL_TOKEN` | the shared secret; default: `token` in the data folder, made by `anneal dev` with mode 0600 |
| `ANNEAL_GATEWAY` | gRPC address of the gateway; default: the running `anneal dev`'s, else 127.0.0.1:{DEFAULT_BASE} |
| `ANNEAL_PORT_BASE` | first port of `anneal dev`; default {DEFAULT_BASE} |
| `ANNEAL_SKILLS_DIR` | folder of skills; default: `skills/` of the checkout |
| `ANNEAL_MODELS_FILE` | model profiles; default: `anneal.yaml` in the data folder, if there is one |
| `ANNEAL_LOG_LEVEL` | least level that services log; default INFO |
| `ANNEAL_OTLP_ENDPOINT` | where services send spans; default: nowhere |
| `ANNEAL_DEBUG` | set: a defect of the command line shows its traceback |

## Ports of `anneal dev`

All on 127.0.0.1; `--port-base` moves them together.

"""

_DEV = """
## What `anneal dev` promises

* It starts Postgres and NATS, then the six services and the local model at once, and says so line by line. It is ready
  when all six services answer SERVING to `grpc.health.v1`.
* A part that ends by itself is started again, after 0.2 s, then twice as long each time, 5 s at the most. One that ends
  more than five times within a minute stops everything, with its last lines. So does, at once, a service whose settings
  are wrong. The model is optional: anneal goes on without it.
* Ctrl-C, SIGTERM and `anneal dev stop` end the services, then NATS and Postgres, and leave no process. After `kill -9`
  of `anneal dev` the kernel ends them; the next start cleans up what is left and continues the runs. Machines of
  the lab go on: `anneal lab down` stops them.
* One data folder has one `anneal dev`; a second is told the pid of the first. A lock whose owner died is no lock.
* `log/anneal.log` in the data folder has every line of every part as JSON; see `anneal dev logs --service NAME -f`.
"""


def pages() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, in the order of the help."""

    def walk(prefix: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield prefix, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk(f"{prefix} {name}", child)

    return walk("anneal", cli)


def reference() -> str:
    """The whole document."""
    codes = ["| code | meaning |", "|---|---|", *(f"| {code.value} | {text} |" for code, text in MEANING.items())]
    ports = ["| part | port |", "|---|---|"]
    ports += [f"| {name} | {DEFAULT_BASE + offset} |" for name, offset in sorted(OFFSETS.items(), key=lambda o: o[1])]
    commands = [_page(name, command) for name, command in pages() if name != "anneal"]
    parts = [_HEAD, "\n".join(codes), _ENVIRONMENT + "\n".join(ports), _DEV.strip(), "## Commands", *commands]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _page(name: str, command: click.Command) -> str:
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join([name, *arguments, "COMMAND" if isinstance(command, click.Group) else ""]).strip()
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    rows = [f"| `{_spelling(option, command)}` | {_meaning(option)} |" for option in options]
    table = "\n".join(["", "| option | meaning |", "|---|---|", *rows]) if rows else ""
    return f"### `{usage}`\n\n{text}\n{table}"


def _spelling(option: click.Option, command: click.Command) -> str:
    names = ", ".join(option.opts) + ("/" + ", ".join(option.secondary_opts) if option.secondary_opts else "")
    return names if option.is_flag else f"{names} {option.make_metavar(click.Context(command))}".replace("|", r"\|")


def _meaning(option: click.Option) -> str:
    text = (option.help or "").replace("|", r"\|")
    shown = f" Default: {option.default}." if option.show_default and option.default is not None else ""
    required = " Required." if option.required else ""
    return text + shown + required


if __name__ == "__main__":
    click.echo(reference(), nl=False)
