"""From a folder of files to an RPM: spec text, EL's merged paths, scriptlets as EL's macros write them."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anneal_lab import recipe
from anneal_lab.proc import run

# Never part of a payload: documentation and Debian's own bookkeeping.
_ALWAYS_DROPPED = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/lintian/*", "/usr/share/bug/*",
    "/usr/share/doc-base/*", "/usr/share/info/*", "/etc/init.d/*", "/etc/init/*", "/etc/default/*", "/etc/apparmor.d/*",
    "/etc/logcheck/*", "/etc/insserv.conf.d/*", "/etc/ufw/*", "/etc/resolvconf/*", "/etc/network/*", "/etc/ppp/*",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What rpmbuild must know besides the files."""

    name: str
    version: str
    summary: str
    release: str = "1.el9"
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    pre: str = ""
    post: str = ""
    # A package made from files on the disk owns those alone; the folders belong to the base.
    folders: bool = True
    # Names of the root's own users and groups: an RPM records names, and the host's may differ.
    users: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)


def merged(path: str) -> str:
    """Debian packages still name /bin and /lib; on disk, as on EL, those are under /usr."""
    for old in ("/bin/", "/sbin/", "/lib/", "/lib64/"):
        if path.startswith(old):
            return "/usr" + path
    return path


def copy_real(root: Path, path: str, tree: Path) -> None:
    """Take over one file as it is on the disk: content, mode, owner, time. Folders are left to the base."""
    source = root / path.lstrip("/")
    if any(fnmatch.fnmatch(path, pattern) for pattern in _ALWAYS_DROPPED[:7]):
        return
    if not source.is_symlink() and not source.is_file():
        return
    target = tree / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)
    info = source.lstat()
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if not source.is_symlink():
        os.chmod(target, info.st_mode & 0o7777)


def tidy(tree: Path, *, drop: tuple[str, ...], moves: Mapping[str, str]) -> None:
    """Bring a Debian payload into EL's layout."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if (tree / name).is_dir():
            shutil.copytree(tree / name, tree / "usr" / name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(tree / name)
    for path in list(tree.rglob("*")):
        name = "/" + str(path.relative_to(tree))
        if (path.is_symlink() or not path.is_dir()) and any(
            fnmatch.fnmatch(name, one) for one in (*_ALWAYS_DROPPED, *drop)
        ):
            path.unlink()
    for old, new in moves.items():
        target = tree / new.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (tree / old.lstrip("/")).rename(target)
    for folder, _, _ in os.walk(tree, topdown=False):
        if folder != str(tree) and not os.listdir(folder) and "/usr/" in folder:
            os.rmdir(folder)


def build(spec: Spec, tree: Path, target: Path) -> None:
    """Build the RPM into `target`."""
    tree.mkdir(parents=True, exist_ok=True)
    top = target.parent / "rpmbuild" / spec.name
    top.mkdir(parents=True)
    target.mkdir(parents=True, exist_ok=True)
    file = top / f"{spec.name}.spec"
    file.write_text(text(spec, tree))
    defines = {
        "_topdir": str(top),
        "_rpmdir": str(target),
        "_dbpath": str(top / "db"),
        "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
        "_binary_payload": "w1.gzdio",
        "_build_id_links": "none",
        "__os_install_post": "%{nil}",
        "debug_package": "%{nil}",
        "source_date_epoch_from_changelog": "0",
    }
    flags = [part for name, value in defines.items() for part in ("--define", f"{name} {value}")]
    run(["rpmbuild", "-bb", "--quiet", *flags, "--define", f"_anneal_tree {tree}", file], timeout=120)
    shutil.rmtree(top)


def text(spec: Spec, tree: Path) -> str:
    """The spec file."""
    lines = [f"Name: {spec.name}", f"Version: {spec.version}", f"Release: {spec.release}", f"Summary: {spec.summary}"]
    lines += ["License: as in Debian", "Vendor: anneal lab", "AutoReqProv: no"]
    lines += [f"Requires: {name}" for name in spec.requires] + [f"Provides: {name}" for name in spec.provides]
    lines += ["%description", f"{spec.summary}. Made for the lab from Debian's build of the software."]
    lines += ["%install", "mkdir -p %{buildroot}", "cp -a %{_anneal_tree}/. %{buildroot}/"]
    lines += _scriptlets(spec, tree)
    return "\n".join([*lines, "%files", *_files(spec, tree), ""])


def _scriptlets(spec: Spec, tree: Path) -> list[str]:
    """What EL's %tmpfiles_create, %systemd_post, %systemd_preun and %systemd_postun write."""
    lines = ["%pre", spec.pre] if spec.pre else []
    units = " ".join(spec.units)
    post = ["ldconfig"]
    post += [f"systemd-tmpfiles --create {conf.name} || :" for conf in sorted(tree.glob("usr/lib/tmpfiles.d/*.conf"))]
    if units:
        post += [f'if [ "$1" -eq 1 ]; then systemctl --no-reload preset {units} >/dev/null 2>&1 || :; fi']
        post += ["systemctl daemon-reload >/dev/null 2>&1 || :"]
        lines += [
            "%preun",
            f'if [ "$1" -eq 0 ]; then systemctl --no-reload disable --now {units} >/dev/null 2>&1 || :; fi',
        ]
        lines += ["%postun", "systemctl daemon-reload >/dev/null 2>&1 || :"]
    return [*lines, "%post", *post, spec.post]


def _files(spec: Spec, tree: Path) -> list[str]:
    lines = []
    common = set((recipe.folder("rpms") / "common-folders.txt").read_text().split())
    for path in sorted(tree.rglob("*")):
        name = "/" + str(path.relative_to(tree))
        folder = path.is_dir() and not path.is_symlink()
        if folder and (name in common or not spec.folders):
            continue
        lines.append(f'{_prefix(name, path, spec)}{"%dir " if folder else ""}"{name}"')
    return lines


def _prefix(name: str, path: Path, spec: Spec) -> str:
    config = "%config(noreplace) " if name.startswith("/etc/") and path.is_file() and not path.is_symlink() else ""
    if name in spec.attributes:
        mode, user, group = spec.attributes[name].split()
        return f"%attr({mode}, {user}, {group}) {config}"
    if path.is_symlink():
        return ""
    info = path.stat()
    if path.is_dir():
        return ""
    user, group = spec.users.get(info.st_uid, "root"), spec.groups.get(info.st_gid, "root")
    return f"%attr({info.st_mode & 0o7777:04o}, {user}, {group}) {config}"
