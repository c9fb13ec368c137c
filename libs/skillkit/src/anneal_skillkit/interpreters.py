"""Code that nobody can read before it runs: names that are made up on the way, and interpreters fed from elsewhere.

Only for scripts whose author is not trusted. What a shell is given as text is read (anneal_skillkit.shell); everything
else that an interpreter would run is refused: standard input, inline code in another language, a file that is not part
of the system, a file that the script itself wrote.
"""

import re
from typing import Final

from anneal_skillkit.paths import normal
from anneal_skillkit.shell import SHELLS, Command, Reading

_LANGUAGES: Final = re.compile(r"(?:python|perl|ruby|node|php|lua|tclsh|guile)[\d.]*|platform-python|pypy\d*")
_SYSTEM: Final = re.compile(r"/(?:usr/(?!local/)|bin/|sbin/|lib|etc/)[\w./+@-]+")
_ASKS_VERSION: Final = frozenset({"--version", "-V", "-v", "--help", "-h"})


def unreadable_code(reading: Reading) -> str:
    """The first command that would run something unknown, or an empty string."""
    written = {normal(w.path) for w in reading.writes if w.how != "mode"}
    for command in reading.commands:
        if not command.literal:
            return command.line or command.word or "a command without a name"
        if "/" in command.word and not _of_the_system(command.word, written):
            return command.line
        if _fed(command, written):
            return command.line
    return ""


def _of_the_system(path: str, written: set[str]) -> bool:
    plain = normal(path)
    return _SYSTEM.fullmatch(plain) is not None and plain not in written


def _fed(command: Command, written: set[str]) -> bool:
    args = command.args
    if command.name in ("source", "."):
        return not args or not _of_the_system(args[0], written)
    if command.name in SHELLS:
        # The text behind -c has been read already.
        if any(re.fullmatch(r"-[a-zA-Z]*c", a) for a in args[:-1]) or (args and args[0] in _ASKS_VERSION):
            return False
        rest = list(args)
        while rest and rest[0].startswith(("-", "+")) and rest[0] not in ("-", "--"):
            rest = rest[2:] if rest[0] in ("-o", "+o", "-O", "+O", "--rcfile", "--init-file") else rest[1:]
        rest = rest[1:] if rest[:1] == ["--"] else rest
        return not rest or not _of_the_system(rest[0], written)
    if _LANGUAGES.fullmatch(command.name):
        return not args or (args[0] not in _ASKS_VERSION and not _of_the_system(args[0], written))
    return False
