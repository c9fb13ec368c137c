"""The token is private; a host key is taken from the right line and shown by its fingerprint."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from anneal_cli.dev.logs import LogFile
from anneal_cli.dev.state import DevState, write_state
from anneal_cli.exits import CliError, ExitCode
from anneal_cli.home import Home
from anneal_cli.hostkeys import accepted_key, fingerprint, key_of_file, keys_in, split_address
from anneal_runtime.children import free_port


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("ANNEAL_TOKEN", raising=False)
    return Home(root=tmp_path / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_made_once_and_for_its_owner_alone(home: Home) -> None:
    secret = home.ensure_token()
    assert mode(home.token_file) == 0o600
    assert len(secret) >= 32
    assert home.ensure_token() == secret == home.token()


def test_a_token_that_others_can_read_is_made_private_again(home: Home) -> None:
    home.ensure_token()
    home.token_file.chmod(0o644)
    home.ensure_token()
    assert mode(home.token_file) == 0o600


def test_the_data_folder_and_what_is_said_in_it_are_for_the_owner_alone(home: Home) -> None:
    (home.root / "log").mkdir(parents=True)
    for folder in (home.root, home.root / "log"):
        folder.chmod(0o755)
    for file in (home.log_file, home.state_file.with_suffix(".part")):
        file.touch(0o644)
    home.make()
    log = LogFile(home.log_file)
    log.close()
    state = DevState(pid=1, started=1.0, port_base=7400, phase="ready", ports={})
    write_state(home, state)
    assert [mode(path) for path in (home.root, home.root / "log")] == [0o700, 0o700]
    assert [mode(path) for path in (home.log_file, home.state_file)] == [0o600, 0o600]


def test_a_data_folder_that_is_shared_is_left_as_it_is(home: Home) -> None:
    home.root.mkdir()
    home.root.chmod(0o1777)
    home.make()
    assert home.root.stat().st_mode & 0o7777 == 0o1777


def test_a_database_inside_the_data_folder_can_still_be_reached_by_its_user(home: Home) -> None:
    data = home.root / "postgres" / "data"
    data.mkdir(parents=True)
    home.root.chmod(0o755)
    # Only root has a Postgres that runs as somebody else.
    if is_root := os.geteuid() == 0:
        os.chown(data, 65534, 65534)
    home.make()
    assert mode(home.root) == (0o711 if is_root else 0o700)


def test_an_empty_token_file_gets_a_token(home: Home) -> None:
    home.root.mkdir()
    home.token_file.write_text("\n")
    home.token_file.chmod(0o600)
    assert home.ensure_token()


def test_a_given_token_wins_and_a_short_one_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.ensure_token()
    monkeypatch.setenv("ANNEAL_TOKEN", "given-by-the-environment")
    assert home.token() == home.ensure_token() == "given-by-the-environment"
    monkeypatch.setenv("ANNEAL_TOKEN", "short")
    with pytest.raises(CliError) as caught:
        home.ensure_token()
    assert caught.value.field == "ANNEAL_TOKEN"


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("admin@web1", ("admin", "web1", 22)),
        ("a.b@10.0.0.1:2222", ("a.b", "10.0.0.1", 2222)),
        ("root@[::1]:22", ("root", "::1", 22)),
    ],
)
def test_an_address_is_split(where: str, parts: tuple[str, str, int]) -> None:
    assert split_address(where) == parts


@pytest.mark.parametrize("where", ["web1", "@web1", "a@", "a@h:0", "a@h:99999", "a@h:x", "a b@h", "a@h:22:22"])
def test_a_wrong_address_is_refused(where: str) -> None:
    with pytest.raises(CliError) as caught:
        split_address(where)
    assert caught.value.code is ExitCode.USAGE
    assert caught.value.field == "--ssh"


@pytest.fixture(scope="module")
def public_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "web1", "-f", str(path)], check=True)
    return path.with_suffix(".pub")


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(public_key: Path) -> None:
    shown = subprocess.run(["ssh-keygen", "-lf", str(public_key)], capture_output=True, text=True, check=True).stdout
    assert fingerprint(key_of_file(public_key, "web1")) == shown.split()[1]


def test_of_many_known_hosts_the_line_of_the_host_is_taken(public_key: Path, tmp_path: Path) -> None:
    key = " ".join(public_key.read_text().split()[:2])
    other = key[:-4] + "AAAA"
    known = tmp_path / "known_hosts"
    known.write_text(f"db1,10.0.0.2 {other}\n[web1]:2222 {key} comment\n")
    assert key_of_file(known, "web1") == key
    with pytest.raises(CliError):
        key_of_file(known, "web2")


def test_ed25519_is_preferred(public_key: Path) -> None:
    key = " ".join(public_key.read_text().split()[:2])
    assert keys_in(f"h ssh-rsa {'A' * 40}\nh {key}\n")[0] == key


def test_a_host_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with pytest.raises(CliError) as caught:
        accepted_key("127.0.0.1", port, yes=True)
    assert str(port) in caught.value.message
    assert caught.value.field == "--ssh"
