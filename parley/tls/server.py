"""TLS 1.3 for ports of ours, with certificates that are renewed while they are served."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from parley.errors import ConfigurationError

logger = logging.getLogger(__name__)

HTTP: Final = ("http/1.1",)

Stamp = tuple[tuple[int, int, int], ...]


class Renewed:
    """A server's context that serves what the files hold at each handshake; connections that are open stay so.

    `clients` (PEM) are the authorities of whom clients must show a certificate; without it none is asked for. A pair
    of files that does not work, or not yet, is logged and the one before goes on being served. Raises
    `ConfigurationError` when the files do not work at the start.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        clients: Path | None = None,
        protocols: Sequence[str] = HTTP,
    ) -> None:
        self._files = (certificate, key)
        self._clients, self._protocols = clients, protocols
        self._stamp = self._look()
        self._current = self._loaded()
        # What libraries hold on to; only what it is replaced with for a connection is ever changed.
        self.context: ssl.SSLContext = self._loaded()
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # Called for each handshake, with or without a name. Two looks at files are nothing beside its signature.
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._renew()
        connection.context = self._current

    def _renew(self) -> None:
        try:
            self._current = self._loaded()
        except ConfigurationError as error:
            logger.warning("%s The certificate of before is served on.", error)
        else:
            logger.info("the certificate %s is served as it is now", self._files[0])

    def _look(self) -> Stamp:
        return tuple(_stamp(path) for path in self._files)

    def _loaded(self) -> ssl.SSLContext:
        certificate, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        check_key(key)
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"certificate {certificate} and key {key} cannot be used: {error}. Give PEM files that belong "
                "together, the key without a password."
            ) from None
        if self._clients is not None:
            _ask_for_certificates(context, self._clients)
        context.set_alpn_protocols(list(self._protocols))
        return context


def check_key(key: Path) -> None:
    """Raise `ConfigurationError` for a key that others can read.

    As PostgreSQL does: it may be read by its owner alone, or, when it is root's, by its group too.
    """
    try:
        status = key.stat()
    except OSError as error:
        raise ConfigurationError(f"{key} cannot be used: {error.strerror}.") from None
    of_root = status.st_uid == 0 and os.geteuid() != 0
    open_to = status.st_mode & (stat.S_IRWXO | (stat.S_IWGRP | stat.S_IXGRP if of_root else stat.S_IRWXG))
    if open_to:
        raise ConfigurationError(
            f"{key} can be read by others, and is a secret: chmod go= {key}, and make a new one if they may have "
            "read it."
        )


def _ask_for_certificates(context: ssl.SSLContext, clients: Path) -> None:
    try:
        context.load_verify_locations(cafile=clients)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"the clients' authority {clients} cannot be used: {error}.") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    return ""
