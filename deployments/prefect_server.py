"""Our own launcher of the Prefect server: `python -m deployments.prefect_server --home DIR [--port 4200]`.

What `prefect server start` does not do: a generated password, CSRF tokens and exact origins, TLS 1.3, no request that
leaves the machine, one SQLite connection (see `sqlite_connection`), the work pool in place before the first request is
answered. It listens on loopback; another address needs a certificate and its key.

Exit codes: 0 after SIGTERM or SIGINT, 2 when it could not start, with one line on stderr that says how to mend it.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import os
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parley import prefect_env
from parley.errors import ConfigurationError
from parley.runs import pool
from parley.tls import Renewed, is_loopback

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

STOP_SECONDS: Final = 3
"""How long open requests and subscriptions get to end after SIGTERM; Prefect's services get as long again."""

LEAST_FREE_BYTES: Final = 64 * 2**20

_RARELY: Final = (20_000, 5, 5)

PAGE_POLICY: Final = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' {api}; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""What Prefect's pages may load: themselves and their API, so that no logo, banner or statistic is fetched outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server listens; `certificate` and `key` are PEM files, both or none.

    `authority` (PEM) has signed the certificate: clients verify with it; without it the certificate signed itself.
    """

    host: str = prefect_env.LOOPBACK
    port: int = prefect_env.PREFECT_PORT
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def check(self) -> None:
        """Raise ConfigurationError for an address on which the password would travel in clear."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("TLS needs both --certificate and --key.")
        for path in (self.certificate, self.key):
            if path and not os.access(path, os.R_OK):
                raise ConfigurationError(
                    f"{path} cannot be read: give the PEM file's path, readable by this user."
                )
        if self.certificate is None and not is_loopback(self.host):
            raise ConfigurationError(
                f"--host {self.host} is not loopback: the password that opens every Block would cross the network "
                "in clear. Give --certificate and --key, or keep 127.0.0.1 and put a TLS proxy in front."
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT and return the exit code."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)  # database and pages are for this user only
    address = Address(
        host=options.host,
        port=options.port,
        certificate=options.certificate,
        key=options.key,
        authority=options.authority,
    )
    try:
        address.check()
        # Before Prefect is imported, which takes seconds: a taken port or a full disk is told at once.
        with bind(address) as listening:
            prefect_env.apply(
                prefect_env.server_environment(
                    options.home,
                    host=address.host,
                    port=address.port,
                    certificate=address.certificate and (address.authority or address.certificate),
                )
                | _database_environment(options.database_url)
            )
            _check_disk(options.home)
            serve(address, listening)
    except ConfigurationError as error:
        sys.stderr.write(f"prefect server: {error}\n")
        return 2
    return 0


def bind(address: Address) -> socket.socket:
    """Return a bound socket that does not listen yet, so that nobody connects before there is an answer.

    Raises ConfigurationError when the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With its protocol named: only then asyncio switches Nagle's algorithm off for each connection. With it an answer
    # waits 40 ms for the acknowledgement of its own head.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(_why_not_bound(address, error)) from error
    return bound


def serve(address: Address, listening: socket.socket) -> None:
    """Serve Prefect on a bound socket until SIGTERM or SIGINT; this process's environment must be prepared.

    Raises ConfigurationError when the database cannot be opened or brought up to date.
    """
    before = gc.get_threshold()
    # While thousands of modules and models are made, the usual collections cost 0.6 s; with none at all 20 MB more are
    # taken and never given back.
    gc.set_threshold(*_RARELY)
    from deployments import prefect_app

    app = prefect_app.make_app(PAGE_POLICY.format(api=_websocket_origins(address)))
    config = server_config(address, app)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        try:
            runner.run(_serve(prefect_app.prefect_application(app), config, listening, before))
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(_why_no_database(error)) from error
        except Exception as error:
            if not (cause := _database_error(error)):
                raise
            raise ConfigurationError(_why_no_database(cause)) from error


def server_config(address: Address, app: Any) -> uvicorn.Config:
    """Return uvicorn's configuration, with TLS 1.3 as the minimum when the address has a certificate."""
    import uvicorn

    tls = Renewed(address.certificate, address.key) if address.certificate and address.key else None
    return uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        log_level="warning",
        lifespan="off",  # entered by us, so that a failing start ends in one line instead of a traceback
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_context_factory=None if tls is None else lambda *_: tls.context,
    )


async def _serve(
    app: FastAPI, config: uvicorn.Config, listening: socket.socket, threshold: tuple[int, int, int]
) -> None:
    import uvicorn

    from deployments import prefect_app

    lifespan = app.router.lifespan_context(app)
    await lifespan.__aenter__()
    try:
        await prefect_app.create_work_pools([pool.work_pool()])
        gc.collect()
        gc.freeze()
        gc.set_threshold(*threshold)
        # uvicorn raises the signal again once it has stopped; the services must still end in order then.
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: None)
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        await _end_in_time(lifespan)


async def _end_in_time(lifespan: AbstractAsyncContextManager[Any]) -> None:
    try:
        # In this task, not in one that wait_for() makes: the services reset context variables that were set here.
        async with asyncio.timeout(STOP_SECONDS):
            await lifespan.__aexit__(None, None, None)
    except TimeoutError:
        logging.getLogger(__name__).warning(
            "Prefect's services did not end within %s s and were left.", STOP_SECONDS
        )


def _why_not_bound(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {address.port} on {address.host} is taken: end the program that has it "
            f"(ss -ltnp 'sport = :{address.port}'), or choose another port with PARLEY_PREFECT_PORT or --port."
        )
    if error.errno == errno.EACCES:
        return f"port {address.port} needs more rights than this user has: choose one above 1023 with --port."
    return (
        f"{address.host}:{address.port} cannot be listened on ({error.strerror or error}): "
        "choose an address of this machine with --host."
    )


def _why_no_database(error: BaseException) -> str:
    text = str(error).splitlines()[0]
    if "disk is full" in text or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return "the disk is full: free some space, then start again; nothing that was committed is lost."
    if "unable to open" in text or "readonly" in text:
        return f"Prefect's database cannot be written ({text}): make its folder writable for this user."
    if "malformed" in text or "not a database" in text:
        return f"Prefect's database is damaged ({text}): restore a backup, or move it away to start with an empty one."
    return f"Prefect's database cannot be used ({text}): check --database-url, its server and the disk."


def _database_error(error: BaseException) -> BaseException | None:
    """Return the database driver's own error behind `error`, or None when it is of another kind."""
    import sqlalchemy.exc

    for cause in _causes(error):
        if isinstance(cause, sqlalchemy.exc.DBAPIError):
            return cause.orig or cause
        if isinstance(cause, (OSError, sqlite3.Error)):
            return cause
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _check_disk(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE_BYTES:
        raise ConfigurationError(
            f"only {free // 2**20} MiB are free under {home}: make it {LEAST_FREE_BYTES // 2**20} MiB and start again."
        )


def _websocket_origins(address: Address) -> str:
    scheme = "wss" if address.certificate else "ws"
    hosts = [address.host, "localhost"] if address.host == prefect_env.LOOPBACK else [address.host]
    return " ".join(
        f"{name}://{host}:{address.port}" for host in hosts for name in (scheme, scheme.replace("ws", "http"))
    )


def _database_environment(database_url: str | None) -> dict[str, str]:
    """What Prefect is told of its database: a PostgreSQL on another machine is verified over TLS, or refused."""
    if not database_url or not database_url.startswith("postgresql"):
        return {} if not database_url else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url}
    import sqlalchemy

    from parley.tls.database import link

    plain = [name.strip() for name in os.environ.get("PARLEY_PLAIN_LINKS", "").split(",")]
    try:
        way = link(sqlalchemy.make_url(database_url), plain)
    except sqlalchemy.exc.ArgumentError:
        raise ConfigurationError(
            "--database-url cannot be read: write postgresql+asyncpg://user@host/name."
        ) from None
    way.context()  # files that do not work are told of now
    url = way.url.render_as_string(hide_password=False)
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, **way.prefect_environment()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.prefect_server", description="Run the Prefect server."
    )
    home = Path(os.environ.get("PARLEY_HOME", "data"))
    port = int(os.environ.get("PARLEY_PREFECT_PORT", prefect_env.PREFECT_PORT))
    parser.add_argument("--home", type=Path, default=home, help="data folder")
    parser.add_argument("--host", default=prefect_env.LOOPBACK)
    parser.add_argument("--port", type=int, default=port)
    parser.add_argument("--database-url", help="SQLAlchemy address; SQLite in the data folder when left out")
    parser.add_argument("--certificate", type=Path, help="PEM certificate chain: TLS 1.3")
    parser.add_argument("--key", type=Path, help="PEM key of the certificate")
    parser.add_argument(
        "--authority", type=Path, help="PEM certificate of who signed it; itself when left out"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
