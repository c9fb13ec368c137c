"""Generations of a folder: whole, independent of each other, and cheap where one is recycled."""

import os
from pathlib import Path

import pytest
from anneal_lab import snapshots


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "same").write_text("stays")
    (folder / "etc" / "conf").write_text("PermitRootLogin yes")
    return folder


def test_a_recycled_generation_becomes_the_new_one_and_leaves_the_others_alone(upper: Path, tmp_path: Path) -> None:
    kept = tmp_path / "generations"
    snapshots.save(upper, kept, "g-0")
    snapshots.save(upper, kept, "g-1")
    (upper / "etc" / "conf").write_text("PermitRootLogin no")
    (upper / "etc" / "same").chmod(0o600)
    snapshots.save(upper, kept, "g-2", recycle="g-1")
    assert snapshots.names(kept) == ("g-0", "g-2")
    assert (kept / "g-0/etc/conf").read_text() == "PermitRootLogin yes"
    assert (kept / "g-0/etc/same").stat().st_mode & 0o777 == 0o644
    assert (kept / "g-2/etc/conf").read_text() == "PermitRootLogin no"
    assert (kept / "g-2/etc/same").stat().st_mode & 0o777 == 0o600


def test_a_change_of_equal_length_whose_time_was_put_back_is_still_seen(upper: Path, tmp_path: Path) -> None:
    kept, conf = tmp_path / "generations", upper / "etc" / "conf"
    snapshots.save(upper, kept, "g-0")
    before = conf.stat()
    conf.write_text("PermitRootLogin no ")
    os.utime(conf, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (conf.stat().st_size, conf.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    snapshots.save(upper, kept, "g-1", recycle="g-0")
    assert (kept / "g-1/etc/conf").read_text() == "PermitRootLogin no "


def test_what_was_removed_is_gone_from_the_next_generation(upper: Path, tmp_path: Path) -> None:
    kept = tmp_path / "generations"
    snapshots.save(upper, kept, "g-0")
    (upper / "etc" / "conf").unlink()
    snapshots.save(upper, kept, "g-1", recycle="g-0")
    assert not (kept / "g-1/etc/conf").exists()


def test_a_spare_that_is_not_there_means_a_full_copy(upper: Path, tmp_path: Path) -> None:
    kept = tmp_path / "generations"
    snapshots.save(upper, kept, "g-1", recycle="g-gone")
    assert (kept / "g-1/etc/conf").read_text() == "PermitRootLogin yes"


def test_a_hidden_change_of_equal_length_is_a_difference_and_a_mere_touch_is_none(upper: Path, tmp_path: Path) -> None:
    kept, conf = tmp_path / "generations", upper / "etc" / "conf"
    snapshots.save(upper, kept, "g-0")
    assert snapshots.differences(upper, kept / "g-0", ()) == []
    before = conf.stat()
    for text, expected in [("PermitRootLogin yes", []), ("PermitRootLogin no ", ["/etc/conf"])]:
        conf.write_text(text)
        os.utime(conf, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert snapshots.differences(upper, kept / "g-0", ()) == expected
    assert snapshots.differences(upper, kept / "g-0", ("/etc/c*",)) == []


def test_a_hidden_change_is_seen_also_where_the_files_name_is_no_text(upper: Path, tmp_path: Path) -> None:
    kept, odd = tmp_path / "generations", Path(os.fsdecode(os.fsencode(upper) + b"/etc/odd-\xff"))
    odd.write_text("yes")
    snapshots.save(upper, kept, "g-0")
    before = odd.stat()
    odd.write_text("no!")
    os.utime(odd, ns=(before.st_atime_ns, before.st_mtime_ns))
    snapshots.save(upper, kept, "g-1", recycle="g-0")
    assert (kept / "g-1/etc" / odd.name).read_text() == "no!"
