"""Reading a bash script without running it: which commands it would run, with which words, and what they would write.

A real parser (tree-sitter) gives the tree; constants assigned to variables are put in, scripts given as text (`sh -c`,
`eval`, here-documents for a shell) are read as well, and wrappers (`sudo`, `env`, `xargs`, `find -exec`) are looked
through. What cannot be known keeps its dollar sign. Over-approximates: both branches of an `if` count.
"""

import itertools
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from anneal_skillkit.written import How, braced, found_by, written_by

_MAX_DEPTH: Final = 6
_MAX_READINGS: Final = 64
_MAX_VALUES: Final = 32
SHELLS: Final = frozenset({"sh", "bash", "dash", "ksh", "zsh", "ash", "rbash"})
# Wrapper -> how many words of its own follow before the command, beside options.
_WRAPPERS: Final = {
    "sudo": 0,
    "doas": 0,
    "env": 0,
    "nohup": 0,
    "nice": 0,
    "ionice": 0,
    "setsid": 0,
    "command": 0,
    "exec": 0,
    "builtin": 0,
    "time": 0,
    "xargs": 0,
    "stdbuf": 0,
    "busybox": 0,
    "unshare": 0,
    "nsenter": 0,
    "systemd-run": 0,
    "timeout": 1,
    "flock": 1,
    "chroot": 1,
    "watch": 0,
    "parallel": 0,
    "runuser": 0,
    "coproc": 0,
}
# Options of wrappers that take a word of their own.
_WITH_WORD: Final = {
    "sudo": {"-u", "-g", "-C", "-h", "-p", "--user", "--group"},
    "env": {"-u", "-C", "-S"},
    "nice": {"-n"},
    "ionice": {"-c", "-n", "-p"},
    "xargs": {"-I", "-n", "-P", "-L", "-d", "-a", "-E", "-s"},
    "timeout": {"-k", "-s"},
    "flock": {"-w", "-E"},
    "nsenter": {"-t"},
    "systemd-run": {"-p", "-u", "--unit", "-M"},
    "stdbuf": {"-i", "-o", "-e"},
    "watch": {"-n"},
    "runuser": {"-u", "-g"},
}
# Nodes that stand for a value which only a run knows.
_UNKNOWN: Final = frozenset({"simple_expansion", "expansion", "command_substitution", "process_substitution"})
# What a unit or a cron table would run, as a line of a text.
_JOBS: Final = re.compile(r"(?m)^\s*(?:Exec[A-Z]\w+=[-@:+!]*|(?:@\w+|(?:[\d*/,a-zA-Z-]+\s+){4}\S+)\s+root\s+)(\S.*)$")
_DEFAULT: Final = re.compile(r"\$\{\w+:?[-=+]([^{}]*)\}")
_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program with its words; piped_from names the programs on its left in a pipeline."""

    name: str
    args: tuple[str, ...]
    piped_from: tuple[str, ...] = ()
    background: bool = False
    looped_forever: bool = False
    # The name as the script has it, with its folder; literal where no value, glob or brace takes part in it.
    word: str = ""
    literal: bool = True

    @property
    def line(self) -> str:
        """The words, joined by blanks."""
        return " ".join((self.name, *self.args))


@dataclass(frozen=True, kw_only=True)
class Write:
    """A path that would be written, and how."""

    path: str
    how: How


@dataclass(kw_only=True)
class Reading:
    """All that a script would do, as far as it can be read."""

    commands: list[Command] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    # Function name -> text of its body.
    functions: dict[str, str] = field(default_factory=dict)
    # Literal texts handed to programs or files (here-documents, strings).
    texts: list[str] = field(default_factory=list)
    # Parts that the parser could not make sense of.
    unread: list[str] = field(default_factory=list)


def read_script(script: str) -> Reading:
    """Reads a script."""
    reading = Reading()
    _Reader(reading, {}, 0).read(script)
    return reading


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bash.language()))


class _Reader:
    def __init__(self, reading: Reading, values: dict[str, list[str]], depth: int, cwd: str = "") -> None:
        self._reading = reading
        self._values = values
        self._depth = depth
        # The folder after the last `cd` to a literal place; empty where it is not known.
        self._cwd = cwd

    def read(self, script: str) -> None:
        if self._depth > _MAX_DEPTH:
            self._reading.unread.append(script[:80])
            return
        root = _parser().parse(script.encode("utf-8", "replace")).root_node
        self._unread(root)
        self._assignments(root)
        self._visit(root, (), background=False, forever=False)

    def _unread(self, node: Node) -> None:
        if node.is_error or node.is_missing:
            self._reading.unread.append(_text(node)[:80])
        elif node.has_error:
            for child in node.children:
                self._unread(child)

    # Constants

    def _assignments(self, node: Node) -> None:
        for one in _walk(node):
            if one.type == "variable_assignment":
                name, value = one.child_by_field_name("name"), one.child_by_field_name("value")
                if name is not None:
                    self._remember(_text(name), self._words(value) if value is not None else [""])
            elif one.type == "for_statement":
                name = one.child_by_field_name("variable")
                for value in one.children_by_field_name("value"):
                    if name is not None:
                        self._remember(_text(name), self._words(value))
            elif one.type == "command":
                self._read_in(one)

    def _read_in(self, command: Node) -> None:
        """Variables that get their value while the script runs: they stay unknown as well."""
        words = [_text(child) for child in command.named_children]
        if words[0] in ("read", "mapfile", "readarray", "getopts"):
            for name in (w for w in words[1:] if w.isidentifier()):
                self._remember(name, [f"${name}"])
        elif words[0] == "printf" and words[1:2] == ["-v"] and len(words) > 2:
            self._remember(words[2], [f"${words[2]}"])

    def _remember(self, name: str, words: Iterable[str]) -> None:
        known = self._values.setdefault(name, [])
        new = [word for word in dict.fromkeys(words) if word not in known]
        if len(known) + len(new) > _MAX_VALUES:
            self._reading.unread.append(f"{name} has too many values")
        known += new[: max(0, _MAX_VALUES - len(known))]

    # Words

    def _words(self, node: Node) -> list[str]:
        """All readings of a word; unknown parts keep their dollar sign."""
        match node.type:
            case "string":
                parts = [self._words(child) for child in node.children if child.type not in ('"', '$"')]
                # Blanks inside quotes are between the children.
                return _joined(parts) if _dense(node) else self._expand(_text(node).strip('$"'))
            case "raw_string":
                return [_text(node)[1:-1]]
            case "ansi_c_string":
                return [_text(node)[2:-1].encode("utf-8").decode("unicode_escape", "replace")]
            case "concatenation":
                return self._braced(_joined([self._words(child) for child in node.children]))
            case "simple_expansion" | "expansion":
                return self._expand(_text(node))
            case "command_substitution" | "process_substitution":
                return ["$(" + " ".join(_text(node).split())[:200] + ")"]
            case "array":
                return [word for child in node.named_children for word in self._words(child)] or [""]
            case "word":
                return self._braced([re.sub(r"\\(.)", r"\1", _text(node), flags=re.S)])
            case _:
                return [_text(node)]

    def _braced(self, words: Sequence[str]) -> list[str]:
        found = [one for word in words for one in (braced(word, _MAX_READINGS) if "{" in word else (word,))]
        return self._few(found)

    def _few(self, found: list[str]) -> list[str]:
        if len(found) > _MAX_READINGS:
            self._reading.unread.append(f"{found[0]} has too many readings")
        return found[:_MAX_READINGS]

    def _expand(self, text: str) -> list[str]:
        names = [n for n in dict.fromkeys(_VARIABLE.findall(text)) if self._values.get(n)]
        readings = []
        for values in itertools.islice(itertools.product(*(self._values[n] for n in names)), _MAX_READINGS):
            one = text
            for name, value in zip(names, values, strict=True):
                one = re.sub(r"\$\{?" + name + r"\b(?:[:#%/^,@][^}]*)?\}?", lambda _, v=value: v, one)  # type: ignore[misc]
            readings.append(one)
        if (default := _DEFAULT.fullmatch(text)) and default[1]:
            readings.append(default[1])
        return readings or [text]

    # Statements

    def _visit(self, node: Node, piped: tuple[str, ...], *, background: bool, forever: bool) -> None:
        match node.type:
            case "command":
                self._command(node, piped, background=background, forever=forever)
            case "pipeline":
                self._pipeline(node, background=background, forever=forever)
                return
            case "redirected_statement":
                self._redirected(node, piped)
            case "function_definition":
                name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
                if name is not None and body is not None:
                    self._reading.functions[_text(name)] = _text(body)
            case "while_statement":
                condition = node.child_by_field_name("condition")
                forever = forever or (
                    condition is not None and _text(condition).strip(" ;\n") in ("true", ":", "[ 1 ]")
                )
            case _:
                pass
        siblings = node.children
        for index, child in enumerate(siblings):
            behind = index + 1 < len(siblings) and siblings[index + 1].type == "&"
            self._visit(child, piped, background=background or behind, forever=forever)

    def _pipeline(self, node: Node, *, background: bool, forever: bool) -> None:
        seen: tuple[str, ...] = ()
        for child in node.named_children:
            self._visit(child, seen, background=background, forever=forever)
            seen += tuple(name for name in _names(child))

    def _redirected(self, node: Node, piped: tuple[str, ...]) -> None:
        body = node.child_by_field_name("body")
        names = tuple(_names(body)) if body is not None else ()
        for redirect in node.children_by_field_name("redirect"):
            if redirect.type == "file_redirect":
                self._file_redirect(redirect)
            elif redirect.type == "heredoc_redirect":
                text = "\n".join(_text(c) for c in redirect.children if c.type == "heredoc_body")
                self._given(names, text)
                for child in redirect.named_children:
                    if child.type == "file_redirect":
                        self._file_redirect(child)
                    elif child.type == "pipeline" or child.type == "command":
                        self._given(tuple(_names(child)), text)
            elif redirect.type == "herestring_redirect":
                for word in (w for c in redirect.named_children for w in self._words(c)):
                    self._given(names, word)

    def _given(self, names: tuple[str, ...], text: str) -> None:
        """A literal text on standard input of these programs."""
        self._reading.texts.append(text)
        self._jobs(text)
        if any(name.rsplit("/", 1)[-1] in SHELLS for name in names):
            self._deeper(text)

    def _file_redirect(self, redirect: Node) -> None:
        sign = "".join(
            c.type for c in redirect.children if c.type in (">", ">>", ">|", "&>", "&>>", "<", "<>", ">&", "<&")
        )
        destination = redirect.child_by_field_name("destination")
        if destination is None or sign.startswith("<") or re.fullmatch(r"\d+|-", _text(destination)):
            return
        for path in self._words(destination):
            self._writes(path, "append" if ">>" in sign else "truncate")

    def _command(self, node: Node, piped: tuple[str, ...], *, background: bool, forever: bool) -> None:
        name = node.child_by_field_name("name")
        if name is None:
            return
        arguments = list(node.children_by_field_name("argument"))
        # A here-string belongs to the command's node where no other redirect stands before it.
        fed = [child for child in node.children if child.type == "herestring_redirect"]
        for word in (w for here in fed for c in here.named_children for w in self._words(c)):
            self._given((_text(name), *(_text(a) for a in arguments)), word)
        literal = not any(one.type in _UNKNOWN for one in _walk(name)) and not re.search(r"[*?{]|\[.", _text(name))
        alternatives = [self._words(name.children[0] if name.children else name)]
        alternatives += [self._words(argument) for argument in arguments]
        if math.prod(len(words) for words in alternatives) > _MAX_READINGS:
            self._reading.unread.append(f"{_text(node)[:60]} has too many readings")
        for reading in itertools.islice(itertools.product(*alternatives), _MAX_READINGS):
            words = list(reading)
            if " " in words[0] and not words[0].startswith("$("):
                words = [*words[0].split(), *words[1:]]
            self._run(words, piped, background=background, forever=forever, literal=literal)
        if _text(name) in ("cd", "pushd", "popd"):
            self._change(alternatives[-1] if arguments else [""])

    def _change(self, to: Sequence[str]) -> None:
        place = posixpath.join(self._cwd, to[0]) if len(to) == 1 else ""
        self._cwd = place if place.startswith("/") and "$" not in place else ""

    def _run(
        self,
        words: Sequence[str],
        piped: tuple[str, ...],
        *,
        background: bool = False,
        forever: bool = False,
        literal: bool = True,
    ) -> None:
        """A command as it would run, looked through its wrappers."""
        if not words:
            return
        name, args = words[0].rsplit("/", 1)[-1], list(words[1:])
        self._reading.commands.append(
            Command(
                name=name,
                args=tuple(args),
                piped_from=piped,
                background=background,
                looped_forever=forever,
                word=words[0],
                literal=literal and not words[0].startswith(("$", "`")),
            )
        )
        self._reading.texts += [a for a in args if "\n" in a or len(a) > 40]
        for arg in args if name in ("echo", "printf", "sed") else ():
            self._jobs(arg)
        for path, how in written_by(name, args):
            self._writes(path, how)
        self._given_by_words(name, args, piped)
        if name in _WRAPPERS:
            self._run(_unwrapped(name, args), piped, background=background, forever=forever)

    def _given_by_words(self, name: str, args: Sequence[str], piped: tuple[str, ...]) -> None:
        """Scripts and commands that are words of this one."""
        if name in SHELLS or name in ("su", "runuser", "script", "watch"):
            for i, arg in enumerate(args[:-1]):
                if re.fullmatch(r"-[a-z]*c", arg) or arg == "--command":
                    self._deeper(args[i + 1])
        if name in ("eval", "trap"):
            self._deeper(" ".join(args) if name == "eval" else (args[0] if args else ""))
        if name == "alias":
            for arg in args:
                self._deeper(arg.partition("=")[2])
        if name == "find":
            for i, arg in enumerate(args):
                if arg in ("-exec", "-execdir", "-ok"):
                    inner = list(itertools.takewhile(lambda w: w not in (";", "\\;", "+"), args[i + 1 :]))
                    for place in found_by(args):
                        self._run([w.replace("{}", place) for w in inner], (*piped, "find"))

    def _deeper(self, script: str) -> None:
        _Reader(self._reading, self._values, self._depth + 1, self._cwd).read(script)

    def _jobs(self, text: str) -> None:
        """What a unit or a cron table in this text would run."""
        for found in _JOBS.finditer(text):
            self._deeper(found[1])

    def _writes(self, path: str, how: How) -> None:
        if self._cwd and not path.startswith(("/", "$", "~")):
            path = posixpath.join(self._cwd, path)
        if path != "/dev/null" and not path.startswith("/dev/std"):
            self._reading.writes.append(Write(path=path, how=how))


def _unwrapped(name: str, args: Sequence[str]) -> list[str]:
    """The command that a wrapper would run."""
    own = _WRAPPERS[name]
    taking = _WITH_WORD.get(name, set())
    rest = list(args)
    while rest:
        if rest[0] == "--":
            rest.pop(0)
            break
        if rest[0].startswith("-"):
            rest = rest[2:] if rest[0] in taking else rest[1:]
        elif name in ("env", "sudo") and re.match(r"[A-Za-z_]\w*=", rest[0]):
            rest.pop(0)
        else:
            break
    return rest[own:]


def _names(node: Node) -> Iterator[str]:
    """Names of the programs in a part of the tree."""
    for one in _walk(node):
        if one.type == "command_name":
            yield _text(one).rsplit("/", 1)[-1]
        elif one.type == "word" and one.parent is not None and one.parent.type == "command":
            # `sudo bash` as the right side of a pipe: the wrapped program counts too.
            yield _text(one).rsplit("/", 1)[-1]


def _walk(node: Node) -> Iterator[Node]:
    todo = [node]
    while todo:
        one = todo.pop()
        yield one
        todo += one.children[::-1]


def _dense(node: Node) -> bool:
    """Whether a node's children cover all of its text."""
    position = node.start_byte
    for child in node.children:
        if child.start_byte != position:
            return False
        position = child.end_byte
    return position == node.end_byte


def _joined(parts: Sequence[Sequence[str]]) -> list[str]:
    return ["".join(words) for words in itertools.islice(itertools.product(*parts), _MAX_READINGS)]


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
