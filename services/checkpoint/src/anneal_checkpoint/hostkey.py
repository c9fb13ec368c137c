"""Reads an OpenSSH public key as it stands in known_hosts or a .pub file (RFC 4253 section 6.6, RFC 5656, RFC 8709)."""

import base64
import binascii
import struct

# Algorithm -> sizes in bytes of the fields after its name; 0: any size above zero.
_FIELDS: dict[str, tuple[int, ...]] = {
    "ssh-ed25519": (32,),
    "ssh-rsa": (0, 0),
    "ecdsa-sha2-nistp256": (8, 65),
    "ecdsa-sha2-nistp384": (8, 97),
    "ecdsa-sha2-nistp521": (8, 133),
}


def parse_host_key(text: str) -> str:
    """Returns the key as "ALGORITHM BASE64", its comment cut off. Raises ValueError saying what is wrong with it."""
    words = text.split()
    if len(text.strip().splitlines()) != 1 or len(words) < 2:
        raise ValueError('wants one line "ALGORITHM BASE64", as in a .pub file')
    algorithm, body = words[0], words[1]
    if algorithm not in _FIELDS:
        raise ValueError(f"unknown algorithm {algorithm[:40]!r}; known: {', '.join(_FIELDS)}")
    try:
        fields = _split(base64.b64decode(body, validate=True))
    except (binascii.Error, struct.error) as e:
        raise ValueError("the key's body is damaged") from e
    sizes = _FIELDS[algorithm]
    named = bool(fields) and fields[0] == algorithm.encode()
    shaped = len(fields) == len(sizes) + 1 and all(
        len(f) == size if size else f for f, size in zip(fields[1:], sizes, strict=True)
    )
    if not named or not shaped:
        raise ValueError(f"the key's body is not a key of {algorithm}")
    return f"{algorithm} {body}"


def _split(blob: bytes) -> list[bytes]:
    """Splits length-prefixed fields; raises struct.error where a length does not fit."""
    fields: list[bytes] = []
    at = 0
    while at < len(blob):
        (size,) = struct.unpack_from(">I", blob, at)
        fields.append(struct.unpack_from(f"{size}s", blob, at + 4)[0])
        at += 4 + size
    return fields
