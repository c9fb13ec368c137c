"""Paths as a script names them, made comparable with the paths that the policy protects."""

import fnmatch
import posixpath
import re
from functools import lru_cache
from typing import Final

# One path for each thing that a rule protects: a glob that takes in one of these is as bad as its name.
_PROTECTED: Final = tuple(
    """/bin /boot /dev /etc /home /lib /lib64 /opt /proc /root /run /sbin /srv /sys /usr /var
    /usr/bin /usr/sbin /usr/lib /usr/lib64 /usr/share /usr/local /usr/libexec /var/lib /var/spool /var/lib/rpm
    /var/lib/dnf /var/lib/anneal /var/lib/anneal/effects /run/anneal /usr/share/xml /usr/share/xml/scap
    /usr/share/xml/scap/ssg /usr/share/xml/scap/ssg/content /usr/share/xml/scap/ssg/content/ssg-rhel9-ds.xml
    /usr/share/openscap /usr/bin/oscap /bin/oscap /usr/bin/sudo /bin/sudo /usr/bin/su /usr/bin/bash /bin/bash
    /usr/bin/sh /bin/sh /usr/bin/rpm /usr/bin/dnf /usr/bin/systemctl /usr/sbin/sshd
    /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/fstab /etc/login.defs /etc/profile /etc/bashrc /etc/hosts
    /etc/resolv.conf /etc/machine-id /etc/nsswitch.conf /etc/os-release /etc/selinux/config /etc/sudoers
    /etc/sudoers.d /etc/sudoers.d/anneal /etc/ssh /etc/ssh/sshd_config /etc/ssh/ssh_host_rsa_key
    /etc/ssh/ssh_host_ed25519_key /etc/pam.d /etc/pam.d/sshd /etc/pam.d/sudo /etc/pam.d/system-auth
    /etc/pam.d/password-auth /etc/security /etc/systemd /etc/sysconfig /etc/ssl /etc/pki /etc/audit/auditd.conf
    /root/.ssh /root/.ssh/authorized_keys /home/user/.ssh /home/user/.ssh/authorized_keys
    /var/log /var/log/audit /var/log/audit/audit.log /var/log/messages /var/log/secure /var/log/wtmp
    /var/log/journal /run/log/journal""".split()  # noqa: SIM905
)


@lru_cache(maxsize=4096)
def meant(path: str) -> tuple[str, ...]:
    """The path in its plain form, and the protected paths that it takes in where it is a glob."""
    plain = normal(path)
    if not plain.startswith("/") or not set(plain) & set("*?["):
        return (plain,)
    glob = re.sub(r"[@!+?*]\([^)]*\)", "*", plain).replace("[^", "[!")
    return (plain, *(p for p in _PROTECTED if _takes_in(glob, p)))


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
