"""What a well-known program writes, by its words; and braces, which name several words at once."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

How = Literal["truncate", "append", "edit", "delete", "create", "mode"]

# A brace list without braces inside; `${x}` is no such list.
_BRACES: Final = re.compile(r"(?<!\$)\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_AWKS: Final = ("awk", "gawk", "mawk")


def written_by(name: str, args: Sequence[str]) -> Iterator[tuple[str, How]]:  # noqa: C901  a table of programs
    """Paths that the program would write, and how; too many rather than too few."""
    plain = [a for a in args if not a.startswith("-")]
    options = " ".join(a for a in args if a.startswith("-"))
    match name:
        case "rm" | "unlink" | "rmdir" | "shred":
            yield from ((path, "delete") for path in plain)
        case "find":
            if "-delete" in args:
                yield from ((path, "delete") for path in found_by(args))
            yield from ((path, "truncate") for path in _after(args, "-fprint", "-fprint0", "-fls", "-fprintf"))
        case "tee" | "sponge":
            yield from ((path, "append" if re.search(r"-\w*a|--append", options) else "truncate") for path in plain)
        case "truncate":
            yield from ((path, "truncate") for path in plain)
        case "mv" | "cp" | "install" | "ln" | "rsync":
            yield from _copied(name, args, plain, options)
        case "sed" | "perl" if re.search(r"(^| )-\w*i|--in-place", options):
            yield from ((path, "edit") for path in plain)
        case "ex" | "ed" | "vi" | "vim" | "patch":
            yield from ((path, "edit") for path in plain)
        case _ if name in _AWKS:
            yield from ((path, "truncate") for a in args for path in re.findall(r'>\s*"([^"]+)"', a))
            if "inplace" in args:
                yield from ((path, "edit") for path in plain)
        case "sort":
            yield from ((path, "truncate") for path in _after(args, "-o", "--output"))
            yield from ((m[1], "truncate") for a in args if (m := re.match(r"(?:-o|--output=)(.+)", a)))
        case "uniq" if len(plain) > 1:
            yield (plain[-1], "truncate")
        case "chmod" | "chown" | "chgrp" | "chattr" | "setfacl" | "chcon":
            yield from ((path, "mode") for path in plain)
        case "touch" | "mkdir" | "mkfifo":
            yield from ((path, "create") for path in plain)
        case "dd":
            yield from ((a[3:], "truncate") for a in args if a.startswith("of="))
        case "curl" | "wget":
            yield from ((path, "truncate") for path in _after(args, "-o", "-O", "--output"))
        case _:
            return


def _after(args: Sequence[str], *options: str) -> list[str]:
    return [args[i + 1] for i, a in enumerate(args[:-1]) if a in options]


def _copied(name: str, args: Sequence[str], plain: Sequence[str], options: str) -> Iterator[tuple[str, How]]:
    """The target itself, and the place in it: only the machine knows whether it is a folder."""
    targets = _after(args, "-t", "--target-directory")
    targets += [a.split("=", 1)[1] for a in args if a.startswith("--target-directory=")]
    sources = [a for a in plain if a not in targets]
    if not targets:
        if len(plain) < 2:
            return
        sources, targets = list(plain[:-1]), [plain[-1]]
    if name == "mv":
        yield from ((path, "delete") for path in sources)
    for target in targets:
        yield (target, "delete" if "--delete" in options else "truncate")
        for source in sources:
            yield (f"{target.rstrip('/')}/{source.rstrip('/').rsplit('/', 1)[-1]}", "truncate")


def found_by(args: Sequence[str]) -> list[str]:
    """What find hands on: PLACE/* when it takes all, PLACE/**/NAME when it is choosy."""
    places = list(itertools.takewhile(lambda a: not a.startswith(("-", "(", "!")), args)) or ["."]
    names = _after(args, "-name", "-iname", "-path", "-regex")
    choosy = [a for a in args if a in ("-nouser", "-nogroup", "-perm", "-user", "-group", "-uid", "-gid", "-newer")]
    which = [f"**/{name}" for name in names if name.strip("*")] or (["**/?"] if choosy else ["*"])
    return [f"{place.rstrip('/')}/{one}" for place in places for one in which]


def braced(word: str, limit: int) -> list[str]:
    """All words that a word with braces stands for, at most limit + 1 of them."""
    todo, done = [word], list[str]()
    while todo and len(done) <= limit:
        one = todo.pop(0)
        found = _BRACES.search(one)
        if found is None:
            done.append(one)
            continue
        listed = found[1].split(",") if "," in found[1] else _range(found[1])
        todo[:0] = [one[: found.start()] + part + one[found.end() :] for part in listed]
    return done


def _range(text: str) -> list[str]:
    first, _, last = text.partition("..")
    last = last.split("..")[0]
    if first.isdigit() and last.isdigit():
        low, high = sorted((int(first), int(last)))
        return [str(n) for n in range(low, min(high, low + 64) + 1)]
    if len(first) == len(last) == 1:
        low, high = sorted((ord(first), ord(last)))
        return [chr(n) for n in range(low, high + 1)]
    return [f"\\{{{text}\\}}"]
