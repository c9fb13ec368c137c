"""Exit codes and the one kind of error that a command ends with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of every command means."""

    OK = 0
    NOT_HELD = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    INTERRUPTED = 130


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.NOT_HELD: "what was asked for did not hold: the run failed, the log is damaged, a check is missing",
    ExitCode.USAGE: "usage, or bad input: the message names the field",
    ExitCode.UNREACHABLE: "cannot reach anneal: not running, another address, or another token",
    ExitCode.NOT_FOUND: "no such run, rule, target, skill, report, approval or parked message",
    ExitCode.CONFLICT: "taken, or over: a leased target, a running anneal dev, a port in use, work nobody waits for",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}


class CliError(Exception):
    """What went wrong, in which field, and the next step. Printed as a few lines on stderr."""

    def __init__(self, *, message: str, code: ExitCode = ExitCode.NOT_HELD, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.hint = hint

    def lines(self) -> list[str]:
        """The text for stderr: what and field, then the next step."""
        field = f" [{self.field}]" if self.field and self.field not in self.message else ""
        head, newline, rest = self.message.partition("\n")
        first = f"anneal: {head}{field}{newline}{rest}"
        return [first, f"  next: {self.hint}"] if self.hint else [first]


def table() -> str:
    """The exit codes as text, as help and documentation show them."""
    return "\n".join(f"{code.value:>3}  {MEANING[code]}" for code in ExitCode)
