"""The link to a PostgreSQL: what an address is allowed to ask for, and a real server that speaks TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it ships neither types nor stubs
import pytest
import sqlalchemy as sa

from parley.errors import ConfigurationError, StoreUnavailable
from parley.store.engine import Store
from parley.tls.database import link
from tests.ports import free_port
from tests.postgres_fixture import PostgresServer, cluster, need_postgres
from tests.prefect_fixture import running_server, start_launcher
from tests.tls.files import made_folder

ELSEWHERE = "0.0.0.0"
"""Leads to this machine on Linux, and is none of its loopback addresses: it is taken for another machine."""


@pytest.fixture(autouse=True)
def _no_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGSERVICE", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u@db.example.com/x",
        "postgresql://u@db.example.com/x?sslmode=verify-full",
        "postgresql://u@db.example.com/x?ssl=verify-full",
        "postgresql://u@10.0.0.5/x",
        "postgresql://u@127.0.0.1/x?sslmode=verify-full",
        "postgresql://u@/x?host=a.example&host=b.example",
        "postgresql://u@/x?host=/run/postgresql&host=b.example",
        "postgresql://u@127.0.0.1/x?host=b.example:5432",
        "postgresql://u@/x?service=prod",
    ],
)
def test_a_database_elsewhere_is_verified(address: str) -> None:
    way = link(sa.make_url(address))
    assert way.verified
    context = way.context()
    assert context is not None
    assert context.check_hostname
    assert not {"sslmode", "ssl", "sslrootcert"} & way.url.query.keys()
    assert way.prefect_environment()["PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_TLS_ENABLED"] == "true"


@pytest.mark.parametrize(
    "mode", ["disable", "allow", "prefer", "require", "verify-ca", "REQUIRE", "nonsense"]
)
@pytest.mark.parametrize("word", ["sslmode", "ssl"])
def test_what_does_not_verify_is_refused(mode: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=r"does not verify.*sslmode=verify-full") as refused:
        link(sa.make_url(f"postgresql://u:secret@db.example.com/x?{word}={mode}"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u@127.0.0.1/x",
        "postgresql://u@localhost:5433/x",
        "postgresql://u@[::1]/x",
        "postgresql://u@/x",
        "postgresql://u@/x?host=/run/postgresql",
        "postgresql://u@127.0.0.1/x?sslmode=disable",
        "postgresql://u@postgres/x",
    ],
)
def test_on_this_machine_nothing_is_asked_for(address: str) -> None:
    way = link(sa.make_url(address), plain_links=["postgres"])
    assert not way.verified
    assert way.context() is None
    assert "sslmode" not in way.url.query
    assert way.prefect_environment() == {}


def test_what_the_environment_says_counts_where_the_address_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "db.example.com")
    assert link(sa.make_url("postgresql://u@/x")).verified
    assert not link(sa.make_url("postgresql://u@127.0.0.1/x")).verified


def test_files_that_do_not_work_are_named_before_anything_is_connected() -> None:
    way = link(sa.make_url("postgresql://u@db.example.com/x?sslrootcert=/none.pem"))
    with pytest.raises(ConfigurationError, match="sslrootcert"):
        way.context()


# --- a real server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Secured:
    server: PostgresServer
    authority: Path
    stranger: Path

    def url(self, database: str, host: str, *more: str) -> str:
        words = "&".join(more)
        return f"postgresql://parley@{host}:{self.server.port}/{database}{'?' + words if words else ''}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """PostgreSQL that lets nobody in over TCP without TLS."""
    folder = made_folder(tmp_path_factory.mktemp("tls") / "certs", ELSEWHERE)
    stranger = made_folder(tmp_path_factory.mktemp("tls") / "certs", ELSEWHERE)
    with cluster(need_postgres()) as server:
        data = server.folder / "data"
        for source, name in ((folder.certificate, "server.crt"), (folder.key, "server.key")):
            target = data / name
            shutil.copy(source, target)
            if server.user is not None:
                shutil.chown(target, server.user)
            target.chmod(0o600)
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("ssl = on\n")
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
        server.stop()
        server.start()
        yield Secured(server, folder.authority, stranger.authority)


async def over_tls(url: str) -> str:
    """The TLS version of the store's own connection, by the server's word."""
    store = await Store.open(url)
    try:
        query = sa.text("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return str(await store.read(lambda conn: conn.scalar(query)))
    finally:
        await store.aclose()


@pytest.mark.servers
async def test_the_store_talks_over_tls_1_3_to_a_server_that_it_verified(secured: Secured) -> None:
    url = secured.url("postgres", ELSEWHERE, f"sslrootcert={secured.authority}")
    assert await over_tls(url) == "TLSv1.3"
    named = secured.url("postgres", "127.0.0.1", "sslmode=verify-full", f"sslrootcert={secured.authority}")
    assert await over_tls(named) == "TLSv1.3"


@pytest.mark.servers
async def test_another_authority_or_another_name_is_not_taken(secured: Secured) -> None:
    for url in (
        secured.url("postgres", ELSEWHERE),
        secured.url("postgres", ELSEWHERE, f"sslrootcert={secured.stranger}"),
        secured.url(
            "postgres", "0", f"sslrootcert={secured.authority}"
        ),  # the same machine by a name it has not
    ):
        with pytest.raises(ConfigurationError, match="could not be verified over TLS") as refused:
            await Store.open(url)
        assert "sslrootcert=" in str(refused.value)
        assert "PARLEY_PLAIN_LINKS=0" in str(refused.value)


@pytest.mark.servers
async def test_a_server_without_tls_is_never_spoken_to_in_clear(tmp_path: Path) -> None:
    with cluster(need_postgres()) as server:
        url = f"postgresql://parley@{ELSEWHERE}:{server.port}/postgres"
        with pytest.raises(ConfigurationError, match="the server has no TLS") as refused:
            await Store.open(url.replace("parley@", "parley:hunter2@"))
        assert f"PARLEY_PLAIN_LINKS={ELSEWHERE} " in str(refused.value)
        assert "sslrootcert=" in str(refused.value)
        assert "hunter2" not in str(refused.value)
        with pytest.raises(ConfigurationError, match="the server has no TLS") as refused:
            await Store.open(f"{url}?sslmode=verify-full")
        assert "PLAIN_LINKS" not in str(refused.value), (
            "it would change nothing for an address that asks for TLS"
        )
        store = await Store.open(url, plain_links=[ELSEWHERE])
        await store.aclose()


async def test_a_link_that_breaks_while_tls_is_agreed_on_may_come_back() -> None:
    """As when the server is starting anew: no setting is wrong, and the hub tries again."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await Store.open(f"postgresql://parley@{ELSEWHERE}:{port}/postgres")


@pytest.mark.servers
async def test_a_hub_that_cannot_verify_its_database_ends_with_a_sentence(tmp_path: Path) -> None:
    """Exit code 2: it is not started again for ever."""
    (tmp_path / "parley.toml").touch()
    with cluster(need_postgres()) as server:
        given = {
            "PARLEY_HOME": str(tmp_path / "home"),
            "PARLEY_KEY_FILE": str(tmp_path / "key" / "key"),
            "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
            "PARLEY_DATABASE_URL": f"postgresql://parley@{ELSEWHERE}:{server.port}/postgres",
        }
        program = "import sys; from parley.processes.hub import main; sys.exit(main())"
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program],
            env=os.environ | given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 2, ended.stderr
    assert f"PARLEY_PLAIN_LINKS={ELSEWHERE}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.servers
async def test_the_unix_socket_needs_none(secured: Secured) -> None:
    store = await Store.open(
        f"postgresql://parley@/postgres?host={secured.server.folder}&port={secured.server.port}"
    )
    await store.aclose()


@pytest.mark.servers
@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_prefects_server_verifies_its_database_too(secured: Secured, tmp_path: Path) -> None:
    database = (await secured.server.create_database()).rsplit("/", 1)[1]
    url = secured.url(database, ELSEWHERE).replace("postgresql://", "postgresql+asyncpg://")
    server = start_launcher(
        tmp_path / "other", free_port(), "--database-url", f"{url}?sslrootcert={secured.stranger}"
    )
    _, said = await asyncio.to_thread(server.communicate, None, 120)
    assert server.returncode == 2
    assert b"certificate verify failed" in said

    with running_server(tmp_path, "--database-url", f"{url}?sslrootcert={secured.authority}", fresh=True):
        connection = await asyncpg.connect(f"{secured.server.address}/postgres")
        try:
            found = await connection.fetch(
                "SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = $1",
                database,
            )
        finally:
            await connection.close()
    assert {(one["ssl"], one["version"]) for one in found} == {(True, "TLSv1.3")}
