"""Secrets go, whatever their shape; configuration that only speaks of them stays readable."""

import time

import pytest
from anneal_skillkit.redact import PATTERNS, redacted

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nQyNTUxOQAA\n-----END OPENSSH PRIVATE KEY-----"
HASH = "$6$rounds=5000$abcdefgh$9vQ0x1yJr0Zb3kq1WcYf8l9nE7hQ2sT5"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"before\n{KEY}\nafter", "b3BlbnNzaC1rZXktdjEAAAAA"),
        (KEY[:60], "b3BlbnNz"),
        (f"root:{HASH}:19000:0:99999:7:::", "9vQ0x1yJr0Zb3kq1"),
        ("admin:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7:19:", "X3DX6M94c7o"),
        ("set superusers=root\npassword_pbkdf2 root grub.pbkdf2.sha512.10000.AAAA.BBBB", "10000.AAAA"),
        ("userPassword: {SSHA}Wm9vb29vb29vb29v", "Wm9vb29v"),
        ("Authorization: Bearer abcdefghijklmnop0123456789", "abcdefghijklmnop"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig-nature", "eyJzdWIiOiIxMjM0In0"),
        ("aws AKIAIOSFODNN7EXAMPLE x", "AKIAIOSFODNN7EXAMPLE"),
        ("export GH=ghp_0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("proxy=http://user:hunter2@proxy.example:3128", "hunter2"),
        ("ldap_default_authtok = Sup3rS3cret", "Sup3rS3cret"),
        ("bindpw: hunter2hunter2", "hunter2"),
        ('"api_key": "0badc0de0badc0de"', "0badc0de"),
        ("ExecStart=/usr/bin/x --password hunter2 --port 5", "hunter2"),
        ("Environment=DB_PASSWORD=hunter2", "hunter2"),
    ],
)
def test_a_secret_is_taken_out_and_named(text: str, secret: str) -> None:
    clean, found = redacted(text)
    assert secret not in clean
    assert "[redacted: " in clean
    assert sum(found.values()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "PasswordAuthentication no",
        "password    requisite    pam_pwquality.so retry=3 local_users_only",
        "password   sufficient   pam_unix.so sha512 shadow use_authtok",
        "PASS_MAX_DAYS   60",
        "root:x:0:0:root:/root:/bin/bash",
        "root:!*:20783:0:99999:7:::",
        "permit_empty_password = no",
        "password_quality = strict enough",
        "-w /etc/shadow -p wa -k identity",
        "disk-space = 75%",
        "sshd: basic settings of the machine",
    ],
)
def test_configuration_that_speaks_of_secrets_stays_as_it_is(text: str) -> None:
    assert redacted(text) == (text, {})


def test_what_is_around_a_secret_stays() -> None:
    clean, found = redacted(f"# ldap\nldap_default_authtok = Sup3rS3cret # x\n{KEY}\nport = 389\n")
    assert clean == "# ldap\nldap_default_authtok = [redacted: secret value] # x\n[redacted: private key]\nport = 389\n"
    assert found == {"secret value": 1, "private key": 1}


def test_redacting_twice_changes_nothing_more() -> None:
    once, _ = redacted(f"password = hunter2\n{KEY}\nroot:{HASH}:1:")
    assert redacted(once) == (once, {})


def test_the_net_takes_its_time_in_proportion_however_hostile_the_text() -> None:
    begun = time.process_time()
    for text in ("-----BEGIN A PRIVATE KEY" * 2000, "password=" * 5000, "a://" * 20000, "$6$" * 20000, "x" * 100_000):
        redacted(text)
    assert time.process_time() - begun < 1.0


def test_every_row_names_what_goes() -> None:
    assert all("secret" in pattern.groupindex and name for name, pattern in PATTERNS)
