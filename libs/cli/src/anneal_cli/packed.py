"""Gzipped reports: a file is packed exactly where its name says so, whatever way the report came."""

import gzip
import zlib

from anneal_cli.exits import CliError, ExitCode

GZIP = "application/gzip"
# A full scan's results have some 20 MB; what unpacks to more than this is no report.
_MOST_BYTES = 1 << 30


def as_named(content: bytes, media_type: str, name: str) -> tuple[bytes, str]:
    """Content and media type as a file of this name must have them. Raises CliError where it cannot be unpacked."""
    is_packed, wants_packed = media_type == GZIP, name.lower().endswith(".gz")
    if is_packed == wants_packed:
        return content, media_type
    if wants_packed:
        return gzip.compress(content, mtime=0), GZIP
    return _unpacked(content), "application/xml" if name.lower().endswith(".xml") else "application/octet-stream"


def _unpacked(content: bytes) -> bytes:
    unpack, why = zlib.decompressobj(wbits=31), ""
    try:
        plain = unpack.decompress(content, _MOST_BYTES)
    except zlib.error as e:
        plain, why = b"", str(e)
    if unpack.eof:
        return plain
    why = why or (f"more than {_MOST_BYTES} bytes" if unpack.unconsumed_tail else "its end is missing")
    raise CliError(
        message=f"the report cannot be unpacked: {why}",
        code=ExitCode.NOT_HELD,
        hint="a name that ends in .gz gets it as it came",
    )
