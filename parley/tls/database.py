"""The link to a PostgreSQL: TLS with a verified server wherever it leaves this machine."""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from parley.errors import ConfigurationError
from parley.tls.addresses import is_loopback
from parley.tls.outgoing import client

VERIFIED: Final = "verify-full"
SYSTEM: Final = "system"
"""libpq's word for the machine's own authorities, also what holds where none is named."""

_WORDS: Final = ("sslmode", "ssl", "sslrootcert", "sslcert", "sslkey")

_PREFECT: Final = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_TLS_"


@dataclass(frozen=True, slots=True)
class Link:
    """How a database is reached: `url` says nothing of TLS any more, unless the link stays on this machine.

    `authority`, `certificate` and `key` are files (PEM); without an authority the machine's own are trusted.
    """

    url: sa.URL
    verified: bool
    authority: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext | None:
        """What to connect with; None where the address itself says it. Raises `ConfigurationError`."""
        if not self.verified:
            return None
        try:
            context = client(ca_file=self.authority or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"the database's sslrootcert, sslcert or sslkey cannot be used: {error}. Give PEM files."
            ) from None
        return context

    def prefect_environment(self) -> dict[str, str]:
        """The same for Prefect's server, which makes its own context of it."""
        if not self.verified:
            return {}
        files = {"CA_FILE": self.authority, "CERT_FILE": self.certificate, "KEY_FILE": self.key}
        told = {"ENABLED": "true", "CHECK_HOSTNAME": "true"} | {
            name: file for name, file in files.items() if file
        }
        return {_PREFECT + name: value for name, value in told.items()}


def link(url: sa.URL, plain_links: Collection[str] = ()) -> Link:
    """How to reach this PostgreSQL. Raises `ConfigurationError` for a link that would not verify its server.

    An address that says nothing of TLS gets `sslmode=verify-full` when it leads off this machine. `plain_links` are
    hosts whose network is as private as this machine: there nothing is asked for.
    """
    mode = _word(url, "sslmode") or _word(url, "ssl")
    if mode in ("", VERIFIED) and (mode or not _stays(url, plain_links)):
        authority = _word(url, "sslrootcert")
        return Link(
            url.difference_update_query(_WORDS),
            verified=True,
            authority="" if authority == SYSTEM else authority,
            certificate=_word(url, "sslcert"),
            key=_word(url, "sslkey"),
        )
    if _stays(url, plain_links):
        return Link(_for_asyncpg(url, mode), verified=False)
    raise ConfigurationError(
        f"sslmode={mode[:20]} does not verify whose database it is, and it is on another machine: write "
        "sslmode=verify-full, with sslrootcert=/path/to/authority.pem if its authority is not one of this machine's."
    )


def unverified(url: sa.URL, error: BaseException) -> str:
    """How to mend what kept TLS from being agreed on with this database; empty where `error` is of something else.

    A connection that broke during it is something else: it may pass.
    """
    mend = (
        "If its authority is not one of this machine's, add sslrootcert=/path/to/authority.pem to the database's "
        "address."
    )
    hosts = ",".join(
        host for host in _hosts(url) if not is_loopback(host) and not host.startswith(("/", "@"))
    )
    if hosts and VERIFIED not in (_word(url, "sslmode"), _word(url, "ssl")):
        mend += (
            f" Only where the network to it is as private as this machine, PARLEY_PLAIN_LINKS={hosts} lets the link "
            "be plain."
        )
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return f"the server has no TLS. Switch it on there (ssl = on). {mend}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        reason = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        return f"its server could not be verified over TLS ({reason}). {mend}"
    return ""


def _stays(url: sa.URL, plain_links: Collection[str]) -> bool:
    return all(
        host.startswith(("/", "@")) or is_loopback(host) or host in plain_links for host in _hosts(url)
    )


def _hosts(url: sa.URL) -> list[str]:
    """Every host that the address, or what it leaves open, leads to; none for the usual Unix sockets."""
    if url.query.get("service") or os.environ.get("PGSERVICE"):
        return ["service"]  # a file says where it leads: taken for another machine
    asked = url.query.get("host", ())
    named = [asked] if isinstance(asked, str) else list(asked)
    hosts = [_without_port(one) for value in named for one in value.split(",")]
    if not hosts:
        hosts = (url.host or os.environ.get("PGHOST", "")).split(",")
    return [host for host in hosts if host]


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not host.startswith("/") else host


def _for_asyncpg(url: sa.URL, mode: str) -> sa.URL:
    # `sslmode` is libpq's name for it, which people copy; asyncpg's is `ssl`.
    plain = url.difference_update_query(["sslmode", "ssl"])
    return plain.update_query_dict({"ssl": mode}) if mode else plain


def _word(url: sa.URL, name: str) -> str:
    value = url.query.get(name, "")
    return value if isinstance(value, str) else value[-1]
