import base64
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from anneal_checkpoint.drivers.ssh import SshDriver
from anneal_checkpoint.hostkey import parse_host_key
from anneal_checkpoint.model import DriverKind, Target
from anneal_runtime.errors import FailedPrecondition, InvalidArgument


def public_key(algorithm: str, *fields: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(f)) + f for f in (algorithm.encode(), *fields))
    return f"{algorithm} {base64.b64encode(blob).decode()}"


ED25519 = public_key("ssh-ed25519", bytes(32))


@pytest.fixture
def good(tmp_path: Path) -> Target:
    key = tmp_path / "key"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o600)
    return Target(name="web1", driver=DriverKind.SSH, host="web1.test", user="ops", key_path=str(key), host_key=ED25519)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "web 1"),
        ("host", "-oProxyCommand=x"),
        ("host", ""),
        ("host", "a..b"),
        ("port", 70000),
        ("port", -1),
        ("user", "ops;id"),
        ("user", ""),
        ("key_path", "relative/key"),
        ("key_path", "/nowhere/key"),
        ("key_path", "/"),
        ("host_key", "ssh-ed25519 AAAA"),
        ("host_key", ""),
        ("machine", "m1"),
    ],
)
async def test_a_wrong_field_is_named(good: Target, field: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await SshDriver().check(replace(good, **{field: value}))  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize("host", ["10.0.0.1", "::1", "web1", "web-1.example.test"])
async def test_names_and_addresses_are_hosts(good: Target, host: str) -> None:
    assert (await SshDriver().check(replace(good, host=host))).host == host


async def test_the_normal_form_has_a_port_and_no_comment(good: Target) -> None:
    checked = await SshDriver().check(replace(good, host_key=f"{ED25519} root@web1\n"))
    assert checked == replace(good, port=22)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
async def test_a_key_file_that_others_can_read_is_refused_with_the_remedy(good: Target, mode: int) -> None:
    Path(good.key_path).chmod(mode)  # noqa: ASYNC240
    with pytest.raises(InvalidArgument, match="chmod 600") as refused:
        await SshDriver().check(good)
    assert refused.value.field == "key_path"


async def test_a_file_without_a_private_key_is_refused(good: Target) -> None:
    Path(good.key_path).write_text("hello")  # noqa: ASYNC240
    with pytest.raises(InvalidArgument, match="no private key"):
        await SshDriver().check(good)


async def test_a_plain_host_has_no_saved_states_and_says_so() -> None:
    driver = SshDriver()
    assert not driver.can_snapshot
    for call in (driver.snapshot("", "n"), driver.restore("", "n"), driver.changed("", "n", ()), driver.drop("", "n")):
        with pytest.raises(FailedPrecondition, match="scripted undo"):
            await call


@pytest.mark.parametrize(
    "key",
    [
        ED25519,
        public_key("ssh-rsa", b"\1\0\1", bytes(257)),
        public_key("ecdsa-sha2-nistp256", b"nistp256", bytes(65)),
        public_key("ecdsa-sha2-nistp521", b"nistp521", bytes(133)),
    ],
)
def test_known_kinds_of_host_keys_are_read(key: str) -> None:
    assert parse_host_key(f"{key} comment with words\n") == key


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "one line"),
        (f"{ED25519}\n{ED25519}", "one line"),
        ("ssh-dss AAAA", "unknown algorithm"),
        (ED25519 + "!", "damaged"),
        (ED25519[:-8], "damaged"),
        (public_key("ssh-ed25519", bytes(31)), "not a key of"),
        (public_key("ssh-ed25519", bytes(32), b"more"), "not a key of"),
        (public_key("ssh-rsa", b"\1\0\1", b""), "not a key of"),
        ("ssh-ed25519 " + public_key("ssh-rsa", b"\1", b"\1").split()[1], "not a key of"),
    ],
)
def test_what_is_no_host_key_is_refused(key: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_host_key(key)
