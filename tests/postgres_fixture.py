"""A real PostgreSQL for tests: one cluster a session, a database of its own for each test.

    from tests.postgres_fixture import postgres_server, postgres_url

in a conftest.py gives both fixtures. Without PostgreSQL the tests are skipped; with CI set they fail.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncpg  # type: ignore[import-untyped]  # it ships neither types nor stubs
import pytest
import pytest_asyncio

from parley.store.engine import Store
from tests.ports import free_port


@dataclass(frozen=True)
class PostgresServer:
    """A running cluster; `stop` and `start` are for tests of what happens without it."""

    programs: Path
    folder: Path
    port: int
    user: str | None
    synchronous: bool = False
    """Whether a commit is on disk before it is answered, as everywhere but in tests."""

    @property
    def address(self) -> str:
        """Without a database's name."""
        return f"postgresql://parley@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when connections are taken."""
        log = self.folder / "log"
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c max_connections=60"
            f" -c fsync={'on' if self.synchronous else 'off'}"
        )
        self._run("pg_ctl", "-w", "-t", "60", "-D", self._data, "-l", str(log), "-o", options, "start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """`immediate` is a crash."""
        self._run("pg_ctl", "-w", "-D", self._data, "-m", mode, "stop")

    def make(self) -> None:
        """A new cluster; whoever reaches its port on this machine may use it, as it holds nothing but tests."""
        self._run("initdb", "-D", self._data, "-U", "parley", "-A", "trust", "-E", "UTF8", "--no-sync")

    async def create_database(self, like: str | None = None) -> str:
        """The address of a new database: an empty one, or a copy of the one that has the address `like`."""
        name = f"test_{secrets.token_hex(6)}"
        template = f" TEMPLATE {like.rsplit('/', 1)[1]}" if like else ""
        await self._execute(f"CREATE DATABASE {name}{template}")
        return f"{self.address}/{name}"

    async def drop_database(self, url: str) -> None:
        """Whoever is still connected to it is thrown out."""
        await self._execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(f"{self.address}/postgres")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout.decode(errors='replace')}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A cluster for the tests of a session."""
    with cluster(need_postgres()) as server:
        yield server


def need_postgres() -> Path:
    """Where its programs are; the test is skipped where it is not installed, and fails with CI set."""
    programs = installed_programs()
    if programs is None:
        reason = "PostgreSQL is not installed: `make test-servers` brings it."
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return programs


@contextmanager
def cluster(programs: Path, *, synchronous: bool = False) -> Iterator[PostgresServer]:
    """A cluster in a folder of its own, on a free port, gone when the block is left."""
    folder = Path(tempfile.mkdtemp(prefix="parley-postgres-"))
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(folder, user)
    server = PostgresServer(programs, folder, free_port(), user, synchronous)
    try:
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture
async def postgres_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A new, empty database."""
    url = await postgres_server.create_database()
    yield url
    await postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def prepared_database(postgres_server: PostgresServer) -> str:
    """An empty store of ours, made once, that nobody is connected to."""

    async def made() -> str:
        url = await postgres_server.create_database()
        await (await Store.open(url)).aclose()
        return url

    # In a thread of its own: the test that asks first may have a loop already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, made()).result()


@pytest_asyncio.fixture
async def postgres_store_url(postgres_server: PostgresServer, prepared_database: str) -> AsyncIterator[str]:
    """A new database with an empty store in it."""
    url = await postgres_server.create_database(like=prepared_database)
    yield url
    await postgres_server.drop_database(url)


def installed_programs() -> Path | None:
    """Where PostgreSQL's programs are: Debian keeps them out of PATH; the newest version counts."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)
