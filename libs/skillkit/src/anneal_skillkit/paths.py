"""Paths as a script names them, made comparable with the paths that the policy protects."""

import fnmatch
import posixpath
import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def meant(path: str, protected: tuple[str, ...]) -> tuple[str, ...]:
    """The path in its plain form, and the protected paths that it takes in where it is a glob."""
    plain = normal(path)
    if not plain.startswith("/") or not set(plain) & set("*?["):
        return (plain,)
    glob = re.sub(r"[@!+?*]\([^)]*\)", "*", plain).replace("[^", "[!")
    return (plain, *(p for p in protected if _takes_in(glob, p)))


def _takes_in(glob: str, path: str) -> bool:
    if "/**/" in glob:
        place, _, name = glob.partition("/**/")
        return path.startswith(f"{place}/") and fnmatch.fnmatchcase(posixpath.basename(path), name)
    want, have = glob.split("/"), path.split("/")
    return len(want) == len(have) and all(map(fnmatch.fnmatchcase, have, want))


def normal(path: str) -> str:
    """/etc//../etc/./x -> /etc/x; a trailing /* stays."""
    if not path.startswith("/"):
        return path
    return posixpath.normpath("/" + path.lstrip("/"))
