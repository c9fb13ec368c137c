"""How an error travels in metadata: whole when short, cut when long, never lost."""

from anneal_runtime.errors import Leased, NotFound
from anneal_runtime.rpc_wire import decode_error, encode_error


def test_a_short_error_travels_whole() -> None:
    again = decode_error(encode_error(Leased("held", field="target", details={"run": "r1"})))
    assert isinstance(again, Leased)
    assert (again.message, again.field, again.details) == ("held", "target", {"run": "r1"})


def test_a_huge_error_fits_the_metadata_and_keeps_its_class() -> None:
    error = NotFound("ü" * 5000, field="f" * 5000, details={f"k{n}" * 100: "ü" * 5000 for n in range(50)})
    data = encode_error(error)
    assert len(data) <= 4096
    assert isinstance(decode_error(data), NotFound)


def test_what_is_no_payload_is_none() -> None:
    assert decode_error(b"\xff\x00") is None
    assert decode_error(b"[1]") is None
