"""Small blobs at hand: the last used, within a bound."""

from anneal_supervisor.blob_cache import BlobCache


def test_what_was_used_last_stays_and_the_bound_of_bytes_holds() -> None:
    cache = BlobCache(room=30, largest=20)
    for name in "abc":
        cache.put(name, "text/plain", name.encode() * 10)
    assert cache.get("a") == ("text/plain", b"a" * 10)
    cache.put("d", "text/plain", b"d" * 15)
    assert [name for name in "abcd" if cache.get(name)] == ["a", "d"]


def test_a_large_blob_is_not_kept_and_one_that_is_here_counts_once() -> None:
    cache = BlobCache(room=30, largest=20)
    cache.put("large", "text/plain", b"x" * 21)
    assert cache.get("large") is None
    for _ in range(5):
        cache.put("a", "text/plain", b"a" * 20)
    cache.put("b", "text/plain", b"b" * 10)
    assert cache.get("a")
    assert cache.get("b")
