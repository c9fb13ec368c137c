"""Generations of a folder: whole, independent of each other, and cheap where one is recycled."""

import os
import random
import shutil
import stat
import time
from pathlib import Path

import pytest
from anneal_lab import LabError, listing, snapshots
from anneal_lab.treehash import tree_hash


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


def test_a_file_that_changes_twice_within_one_tick_of_the_clock_is_copied_both_times(
    upper: Path, tmp_path: Path
) -> None:
    kept, conf = tmp_path / "generations", upper / "etc" / "conf"
    snapshots.save(upper, kept, "g-0")
    # As if the file had been copied between two changes in one tick: its record is the same before and after.
    (kept / "g-0/etc/conf").write_text("what it held between")
    conf.write_text("PermitRootLogin no")
    listing.store(listing.take(upper), kept / "g-0")
    snapshots.save(upper, kept, "g-1", recycle="g-0")
    assert (kept / "g-1/etc/conf").read_text() == conf.read_text()


def test_a_spare_without_its_own_listing_is_compared_file_by_file(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "generations"
    monkeypatch.setattr(listing, "_TICK_NS", 0)
    snapshots.save(upper, kept, "g-0")
    spoilt = kept / "g-0/etc/conf"
    shutil.rmtree(kept / "g-0/etc")
    (kept / "g-0/etc").mkdir()
    spoilt.write_text("PermitRootLogin maybe")
    # The generation was put in place anew: the listing under its name is of another folder.
    (kept / "g-0").rename(kept / "away")
    (kept / "away").rename(kept / "g-0")
    snapshots.save(upper, kept, "g-1", recycle="g-0")
    assert tree_hash(str(kept / "g-1")) == tree_hash(str(upper))


def test_a_listing_that_breaks_off_makes_no_generation(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, tools = tmp_path / "generations", tmp_path / "tools"
    tools.mkdir()
    (tools / "find").write_text("#!/bin/sh\necho find: etc: Input/output error >&2\nexit 1\n")
    (tools / "find").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(LabError, match="Input/output error"):
        snapshots.save(upper, kept, "g-0")
    assert snapshots.names(kept) == ()


def _mutate(folder: Path, pick: random.Random) -> None:
    """One change of the kinds that a script can make."""
    entries = sorted(folder.rglob("*"))
    folders = [folder, *(p for p in entries if p.is_dir() and not p.is_symlink())]
    files = [p for p in entries if p.is_file() and not p.is_symlink()]
    new, one = pick.choice(folders) / f"n {pick.randrange(40)}", pick.choice([*entries, folder / "none"])
    if new.exists() or new.is_symlink():
        new = folder / pick.randbytes(8).hex()
    match pick.randrange(13):
        case 0 | 1:
            new.write_bytes(pick.randbytes(pick.randrange(3000)))
        case 2 if files:
            file = pick.choice(files)
            before = file.stat()
            file.write_bytes(pick.randbytes(before.st_size))
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        case 3:
            new.mkdir()
        case 4:
            shutil.rmtree(one) if one in folders else one.unlink(missing_ok=True)
        case 5 if files:
            os.link(pick.choice(files), new)
        case 6:
            new.symlink_to(f"to-{pick.randrange(9)}")
        case 7 if one in folders or one in files:
            one.chmod(pick.choice((0o600, 0o4755, 0o750, 0o1777)) | 0o700)
        case 8:
            os.mkfifo(new)
        case 9:
            marked = pick.choice([*folders, *files])
            if os.listxattr(marked):
                os.removexattr(marked, "user.mark")
            else:
                os.setxattr(marked, "user.mark", pick.randbytes(4))
        case 10 if one.exists() and one not in new.parents:
            one.rename(new)
        case 11 if os.geteuid() == 0 and one in entries:
            os.chown(one, pick.randrange(3), pick.randrange(3), follow_symlinks=False)
        case 12 if os.geteuid() == 0:
            # What overlayfs leaves where a file of the image was removed.
            os.mknod(new, stat.S_IFCHR, os.makedev(0, 0))


def _links(folder: Path) -> set[frozenset[Path]]:
    """Names that belong together because they are one file."""
    found: dict[int, set[Path]] = {}
    for path in folder.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            found.setdefault(path.lstat().st_ino, set()).add(path.relative_to(folder))
    return {frozenset(names) for names in found.values() if len(names) > 1}


@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_script_does_a_recycled_generation_equals_the_machine(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper, kept, pick = tmp_path / "upper", tmp_path / "generations", random.Random(seed)
    # Else all that a test does would count as just now, and nothing would be left out: the clock has to tick instead.
    monkeypatch.setattr(listing, "_TICK_NS", 0)
    upper.mkdir()
    for _ in range(25):
        _mutate(upper, pick)
    snapshots.save(upper, kept, "g-0")
    for turn in range(1, 9):
        for _ in range(pick.randrange(12)):
            _mutate(upper, pick)
        snapshots.save(upper, kept, f"g-{turn}", recycle=f"g-{turn - 1}")
        time.sleep(0.011)
        copy = kept / f"g-{turn}"
        assert tree_hash(str(copy)) == tree_hash(str(upper))
        assert _links(copy) == _links(upper)
