"""Redaction: secrets that a target shows by accident are taken out before a text is stored or put into a prompt.

A table of patterns, applied in its order. It is a net for the usual shapes of secrets and no proof that none is left:
what must never be read is kept from being read at all (anneal_skillkit.probes).
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

# Values that say how a secret is handled and are none themselves: `nullok_password = no`.
_HARMLESS: Final = re.compile(
    r"(?i)[\"']?(?:yes|no|on|off|true|false|none|null|enabled?|disabled?|required?|optional|\d{1,4})[\"']?[;,]?"
)
_KEYS: Final = "password|passwd|passphrase|secret|token|api_?key|access_?key|authtok|bindpw|rootpw|credentials?|psk"

# What it is called, and the pattern: the named group `secret` goes, everything else of a match stays.
_TABLE: Final[tuple[tuple[str, str], ...]] = (
    # A block that was cut off has no end; then all that follows its beginning goes.
    ("private key", r"(?s)(?P<secret>-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[^\n]*|\Z))"),
    ("password hash", r"(?P<secret>\$(?:[1567]|2[abxy]?|g?y|sha1|md5|argon2\w*)\$[./A-Za-z0-9$=,+-]{8,})"),
    ("password hash", r"(?P<secret>\bgrub\.pbkdf2\.\S+)"),
    ("password hash", r"(?i)(?P<secret>\{(?:S?SHA|SMD5|CRYPT|PBKDF2)\w*\}[A-Za-z0-9+/=$.]{8,})"),
    ("token", r"(?P<secret>\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"),
    ("token", r"(?P<secret>\b(?:AKIA|ASIA)[A-Z0-9]{16}\b)"),
    ("token", r"(?P<secret>\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|hvs\.|dckr_pat_)[\w-]{16,})"),
    ("token", r"(?i)\b(?:bearer|basic|negotiate)\s+(?P<secret>[\w.~+/-]{16,}=*)"),
    ("password", r"(?i)\b[a-z][a-z0-9+.-]*://[^\s:/@]*:(?P<secret>[^\s@/]+)@"),
    ("secret value", rf"(?im)(?:\b|[_-])(?:{_KEYS})[\"']?[ \t]*[=:][ \t]*(?P<secret>(?![\[{{<(])[^\s#]\S*)"),
    ("secret value", r"(?i)(?<![\w-])--?(?:password|token|secret)[ =](?P<secret>(?!-)\S+)"),
)
PATTERNS: Final = tuple((name, re.compile(pattern)) for name, pattern in _TABLE)


def redacted(text: str) -> tuple[str, Mapping[str, int]]:
    """The text with every secret that the table knows replaced by its name, and how often each was found."""
    found: Counter[str] = Counter()
    for name, pattern in PATTERNS:
        pieces, end = [], 0
        for match in pattern.finditer(text):
            secret = match["secret"]
            if secret.startswith("[redacted") or _HARMLESS.fullmatch(secret):
                continue
            pieces += [text[end : match.start("secret")], f"[redacted: {name}]"]
            end = match.end("secret")
            found[name] += 1
        text = "".join([*pieces, text[end:]])
    return text, dict(found)
